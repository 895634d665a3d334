"""Metrics with ground truth against plain formulas and other libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import correlate
from scipy.signal import correlate2d

from basicsr.metrics.full_reference import MAE, PSNR, GaussianSSIM, UniformSSIM, VolumeSSIM

OFFSETS = np.arange(-5, 6)
AXIS = np.exp(-(OFFSETS**2) / (2 * 1.5**2))
AXIS /= AXIS.sum()


def pair(height: int, width: int, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return a restored image and its ground truth, in [0, 1]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    waves = [0.5 + 0.4 * np.sin(x / 4 + c) * np.cos(y / 5 - c) for c in range(channels)]
    target = np.stack(waves, axis=2)
    return (target + rng.normal(0, 0.05, target.shape)).clip(0, 1), target


def index(means: list[np.ndarray], peak: float, ratio: float = 1) -> np.ndarray:
    """Return SSIM from the means of a, b, aa, bb and ab; `ratio` scales the covariances."""
    a, b, aa, bb, ab = means
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    upper = (2 * a * b + c1) * (2 * ratio * (ab - a * b) + c2)
    return upper / ((a * a + b * b + c1) * (ratio * (aa - a * a + bb - b * b) + c2))


def products(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
    return a, b, a * a, b * b, a * b


@pytest.mark.parametrize("peak", [1, 255])
@pytest.mark.parametrize(("height", "width", "channels"), [(20, 17, 3), (70, 4, 3), (9, 80, 1)])
def test_ssim_of_a_volume(height, width, channels, peak) -> None:
    a, b = (peak * each for each in pair(height, width, channels))
    window = AXIS[:, None, None] * AXIS[:, None] * AXIS
    means = [correlate(each, window, mode="nearest") for each in products(a, b)]
    assert VolumeSSIM()(a, b, peak) == pytest.approx(index(means, peak).mean(), abs=1e-12)


def test_ssim_of_a_volume_of_one_channel_is_two_dimensional() -> None:
    a, b = pair(15, 19, 1)
    padded = [np.pad(each[..., 0], 5, mode="edge") for each in products(a, b)]
    means = [correlate2d(each, np.outer(AXIS, AXIS), "valid") for each in padded]
    assert VolumeSSIM()(a, b, 1) == pytest.approx(index(means, 1).mean(), abs=1e-12)


def test_ssim_of_a_volume_where_it_differs_from_its_channels() -> None:
    """Errors of opposite sign in two channels average out within the window."""
    _, target = pair(40, 40)
    rng = np.random.default_rng(1)
    error = rng.normal(0, 0.1, (40, 40))
    restored = target + np.stack([error, -error, 0 * error], axis=2)
    channels = [VolumeSSIM()(restored[..., [c]], target[..., [c]], 1) for c in range(3)]
    assert VolumeSSIM()(restored, target, 1) != pytest.approx(np.mean(channels), abs=0.01)


@pytest.mark.parametrize("peak", [1, 255])
def test_ssim_with_a_uniform_window(peak) -> None:
    a, b = (peak * each for each in pair(20, 17))
    means = [
        np.lib.stride_tricks.sliding_window_view(each, (7, 7), (0, 1)).mean((3, 4))
        for each in products(a, b)
    ]
    expected = index(means, peak, ratio=49 / 48).mean()
    assert UniformSSIM()(a, b, peak) == pytest.approx(expected, abs=1e-10)


def test_ssim_with_a_gaussian_window_and_a_mask() -> None:
    a, b = pair(24, 21)
    mask = np.random.default_rng(2).random((24, 21)) < 0.7
    maps = []
    for c in range(3):
        means = [
            correlate2d(each, np.outer(AXIS, AXIS), "valid")
            for each in products(a[..., c], b[..., c])
        ]
        maps.append(index(means, 1))
    similarity = np.stack(maps, axis=2)
    assert GaussianSSIM()(a, b, 1) == pytest.approx(similarity.mean(), abs=1e-12)
    expected = similarity[mask[5:-5, 5:-5]].mean()
    assert GaussianSSIM()(a, b, 1, mask) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", [VolumeSSIM(), UniformSSIM(), GaussianSSIM()])
@pytest.mark.parametrize(("peak", "gray"), [(1, 0.0), (255, 255.0)])
def test_ssim_of_constant_images(metric, peak, gray) -> None:
    """Without structure only the luminance term is left."""
    a = np.full((12, 13, 3), gray)
    assert metric(a, a, peak) == pytest.approx(1, abs=1e-12)
    half = np.full((12, 13, 3), peak / 2)
    x, y, c1 = gray / peak, 0.5, 0.01**2
    expected = (2 * x * y + c1) / (x * x + y * y + c1)
    assert metric(a, half, peak) == pytest.approx(expected, abs=1e-9)


def test_mean_absolute_error() -> None:
    a, b = pair(5, 6)
    b = a + np.where(np.arange(6)[:, None] % 2, 0.1, -0.3)
    assert MAE()(a, b, 1) == pytest.approx(0.2, abs=1e-12)
    assert MAE()(255 * a, 255 * b, 255) == pytest.approx(0.2, abs=1e-12)


def test_psnr_of_identical_images() -> None:
    a, b = pair(5, 6)
    assert PSNR()(a, a, 1) == math.inf
    assert PSNR(of_identical=100)(a, a, 1) == 100
    assert PSNR(of_identical=100)(a, b, 1) == PSNR()(a, b, 1) < 40
