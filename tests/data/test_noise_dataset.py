from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from basicsr.data import LoaderSettings, SampleStage, build_dataset, training_batches
from basicsr.io.images import read_image, write_png
from basicsr.utils.errors import OptionsError


def _noisy(root: Path, **options):
    return build_dataset({"type": "GaussianNoiseDataset", "dataroot_gt": str(root), **options})


def _batches(dataset, **changes):
    settings = LoaderSettings(**{"patches": [SampleStage(16, 4, 12)], "seed": 3, **changes})
    return list(training_batches(dataset, settings))


@pytest.fixture
def root(make_images) -> Path:
    return make_images((f"{i}.png" for i in range(6)), height=24, width=20)


def test_samples_are_the_images_plus_published_noise(root: Path):
    dataset = _noisy(root, sigma=25)
    assert (dataset.lq_dtype, dataset.gt_dtype) == (np.float32, np.uint8)
    noise = np.random.RandomState(0).normal(0, 25 / 255, (24, 20, 3))
    for index in (0, 5, 0):  # the noise depends neither on the index nor on earlier images
        lq, gt = dataset.sample(index)
        assert (lq.dtype, gt.dtype) == (np.float32, np.uint8)
        np.testing.assert_array_equal(gt, read_image(root / f"{index}.png"))
        expected = (gt.astype(np.float32) / 255 + noise).astype(np.float32)
        np.testing.assert_array_equal(lq, expected)


@pytest.mark.shared_data
def test_noise_of_the_published_benchmarks(shared_data: Path, tmp_path: Path):
    folder = shared_data.parent / "golden" / "tasks" / "protocols"
    golden = json.loads((folder / "protocols.json").read_text())["gaussian_noise"]
    assert len(golden["cases"]) == 6
    for case in golden["cases"]:
        height, width, channels = case["shape"]
        color = "gray" if channels == 1 else "rgb"
        dataset = _noisy(folder, files=(case["image"],), sigma=case["sigma"], color=color)
        lq, gt = dataset.sample(0)
        assert gt.shape == (height, width, channels)
        assert lq.ravel()[:5].tolist() == pytest.approx(case["noisy_float32_first5"], abs=0)
        assert hashlib.sha256(lq.tobytes()).hexdigest() == case["noisy_float32_sha256"]
        noisy = (np.clip(lq, 0, 1) * 255).round().astype(np.uint8)
        error = np.square(noisy.astype(float) - gt).mean()
        psnr = 10 * np.log10(255**2 / error)
        assert psnr == pytest.approx(case["psnr_noisy_uint8"], abs=1e-6)


def test_training_noise_is_exact_and_unclipped(root: Path):
    for batch in _batches(_noisy(root, sigma=50)):
        assert batch.lq.dtype == torch.float32
        assert batch.gt.dtype == torch.uint8
        noise = batch.lq - batch.gt.float() / 255
        assert float(noise.std()) * 255 == pytest.approx(50, rel=0.06)
        assert float(batch.lq.min()) < -0.05
        assert float(batch.lq.max()) > 1.05


def test_patches_without_noise_are_the_ground_truth(root: Path):
    for batch in _batches(_noisy(root, sigma=0)):
        assert torch.equal(batch.lq, batch.gt.float() / 255)


@pytest.mark.parametrize("options", [{"sigma": 25}, {"sigma": (0, 50)}, {"sigma_choices": (5, 9)}])
def test_workers_ranks_micro_batches_and_resuming_change_nothing(root: Path, options):
    def loaded(start: int = 0, **changes):
        settings = LoaderSettings(**{"patches": [SampleStage(16, 4, 6)], "seed": 3, **changes})
        batches = list(training_batches(_noisy(root, **options), settings, start))
        return torch.cat([batch.lq for batch in batches]), torch.cat([b.gt for b in batches])

    lq, gt = loaded()
    for changes in ({"num_workers": 2}, {"micro_batches": 2}, {"num_workers": 1}):
        assert all(map(torch.equal, loaded(**changes), (lq, gt)))
    assert all(map(torch.equal, loaded(start=2), (lq[8:], gt[8:])))
    for rank in (0, 1):
        mine = torch.arange(24).view(6, 2, 2)[:, rank].flatten()
        assert all(map(torch.equal, loaded(rank=rank, world_size=2), (lq[mine], gt[mine])))


def _sigmas(dataset) -> np.ndarray:
    noise = [batch.lq - batch.gt.float() / 255 for batch in _batches(dataset)]
    return torch.cat(noise).flatten(1).std(dim=1).numpy() * 255


def test_a_range_is_sampled_uniformly_for_every_patch(root: Path):
    sigmas = _sigmas(_noisy(root, sigma=(10, 50)))
    assert sigmas.min() == pytest.approx(10, abs=3)
    assert sigmas.max() == pytest.approx(50, abs=4)
    assert sigmas.mean() == pytest.approx(30, abs=4)


def test_choices_are_discrete(root: Path):
    sigmas = _sigmas(_noisy(root, sigma_choices=(15, 50)))
    low = sigmas < 30
    assert sigmas[low] == pytest.approx(np.full(low.sum(), 15), rel=0.1)
    assert sigmas[~low] == pytest.approx(np.full((~low).sum(), 50), rel=0.1)
    assert 12 < low.sum() < 36


def test_gray_and_sixteen_bits(tmp_path: Path):
    image = np.arange(20 * 20, dtype=np.uint16).reshape(20, 20, 1) * 100
    write_png(tmp_path / "1.png", image)
    dataset = _noisy(tmp_path, sigma=0, color="as_stored", bit_depth="as_stored")
    assert (dataset.lq_channels, dataset.gt_channels, dataset.bit_depth) == (1, 1, 16)
    (batch, *_) = _batches(dataset)
    assert batch.gt.dtype == torch.uint16
    assert batch.lq.shape == batch.gt.shape == (4, 1, 16, 16)
    np.testing.assert_array_equal(batch.lq.numpy(), batch.gt.numpy().astype(np.float32) / 65535)


@pytest.mark.parametrize("options", [{}, {"sigma": 25, "sigma_choices": (5, 9)}])
def test_one_way_to_choose_sigma(root: Path, options):
    with pytest.raises(OptionsError, match="takes sigma or sigma_choices"):
        _noisy(root, **options)


def test_an_empty_range(root: Path):
    with pytest.raises(OptionsError, match=r"sigma: the range \[50, 10\] is empty; swap its ends"):
        _noisy(root, sigma=(50, 10))


def test_the_fingerprint_covers_sigma(root: Path):
    options = ({"sigma": 25}, {"sigma": 50}, {"sigma": (25, 50)}, {"sigma_choices": (25, 50)})
    assert len({_noisy(root, **option).fingerprint()["sha256"] for option in options}) == 4
