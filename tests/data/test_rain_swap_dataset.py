from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from basicsr.data import (
    ImagePair,
    LoaderSettings,
    SampleStage,
    build_dataset,
    training_batches,
)
from basicsr.data.rain_swap_dataset import draw_rain_layer
from basicsr.io.images import write_png

SIZE = 16


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Folder of two pairs: dark images with gray streaks, which differ and are dim at the bottom.

    The clean levels of red are 20 and 40, the streaks add 100 and 200.
    """
    rain = np.zeros((2, SIZE, SIZE, 1), np.uint8)
    rain[0, :, 3], rain[1, :, 9] = 100, 200
    rain[:, -1] //= 2
    for number, layer in enumerate(rain, 1):
        clean = np.full((SIZE, SIZE, 3), [20 * number, 30, 40], np.uint8)
        write_png(tmp_path / f"norain/norain-{number}.png", clean)
        write_png(tmp_path / f"rain/norain-{number}.png", clean + layer)
    return tmp_path


def _dataset(root: Path, type: str = "RainSwapDataset", **options):
    return build_dataset({"type": type, "dataroot": str(root), "layout": "RainTrainL", **options})


def _patches(dataset, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rainy and clean patches, N x C x H x W integers, of batches of eight."""
    settings = LoaderSettings([SampleStage(SIZE, 8, iterations)], seed=3)
    batches = list(training_batches(dataset, settings))
    rainy, clean = (
        np.concatenate([getattr(batch, side).numpy().astype(int) for batch in batches])
        for side in ("lq", "gt")
    )
    return rainy, clean


def test_rain_is_swapped_between_pairs_and_never_turned(root):
    rainy, clean = _patches(_dataset(root), 8)
    rain = rainy - clean
    assert (rain.max(axis=1) == rain.min(axis=1)).all()  # gray
    assert (rain[:, :, -1] == rain[:, :, 0] // 2).all()  # columns that are dim at the bottom
    assert (np.ptp(rain[:, :, :-1], axis=2) == 0).all()
    scenes, layers = clean[:, 0, 0, 0], rain.max(axis=(1, 2, 3))
    found = set(zip(scenes.tolist(), layers.tolist(), strict=True))
    assert found == {(20, 100), (20, 200), (40, 100), (40, 200)}


@pytest.mark.parametrize(
    ("share", "lowest", "highest"), [(0.0, 0, 0), (0.5, 0.1, 0.4), (1.0, 0.3, 0.7)]
)
def test_a_share_of_the_patches_gets_other_rain(root, share, lowest, highest):
    rainy, clean = _patches(_dataset(root, rain_swap=share), 16)
    own = np.where(clean[:, 0, 0, 0] == 20, 100, 200)
    foreign = ((rainy - clean).max(axis=(1, 2, 3)) != own).mean()
    assert lowest <= foreign <= highest


def test_without_swapping_it_is_the_paired_dataset(root):
    ours = _patches(_dataset(root, rain_swap=0.0), 4)
    theirs = _patches(_dataset(root, "PairedImageDataset"), 4)
    np.testing.assert_array_equal(ours, theirs)


def test_swapped_rain_is_clipped_and_scaled(root):
    rainy, clean = _patches(_dataset(root, rain_scale=2.0), 16)
    widths = {int((layer[0] > 20).sum()) for layer in (rainy - clean).max(axis=1)}
    assert {1, 2} <= widths
    write_png(root / "norain/norain-1.png", np.full((SIZE, SIZE, 3), 250, np.uint8))
    rainy, _ = _patches(_dataset(root), 4)
    assert rainy.max() == 255


def test_gray_images(root):
    dataset = _dataset(root, color="gray")
    rainy, clean = _patches(dataset, 4)
    assert rainy.shape == clean.shape == (32, 1, SIZE, SIZE)
    assert set((rainy - clean).max(axis=(1, 2, 3)).tolist()) == {100, 200}


def test_whole_images_keep_their_own_rain(root):
    swapped, plain = _dataset(root), _dataset(root, "PairedImageDataset")
    for index in range(2):
        for ours, theirs in zip(swapped.sample(index), plain.sample(index), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_options_that_change_the_rain_change_the_fingerprint(root):
    datasets = [_dataset(root), _dataset(root, rain_swap=0.5), _dataset(root, rain_scale=2.0)]
    assert len({dataset.fingerprint()["sha256"] for dataset in datasets}) == 3


def test_all_patches_get_unscaled_rain_by_default(root):
    dataset = _dataset(root)
    assert (dataset.rain_swap, dataset.rain_scale) == (1.0, 1.0)


def test_a_clipped_channel_does_not_weaken_the_layer():
    clean = np.full((4, 4, 3), [250, 100, 50], np.uint8)
    rainy = np.minimum(clean.astype(int) + 60, 255).astype(np.uint8)
    rain = draw_rain_layer(ImagePair(rainy, clean), 4, np.random.default_rng(0))
    assert (rain == 60).all()
