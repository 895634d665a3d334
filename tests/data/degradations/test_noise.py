from __future__ import annotations

import numpy as np
import pytest

from basicsr.data.degradations.noise import add_gaussian_noise, add_published_noise


def _image(dtype: type, channels: int = 3) -> np.ndarray:
    levels = np.iinfo(dtype).max + 1
    return np.random.default_rng(0).integers(0, levels, (80, 90, channels), dtype)


@pytest.mark.parametrize("sigma", [0, 15, 50])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_noise_has_its_standard_deviation_in_eight_bit_levels(dtype, sigma):
    image = _image(dtype)
    noisy = add_gaussian_noise(image, sigma, np.random.default_rng(1))
    noise = noisy - image / np.iinfo(dtype).max
    assert noisy.dtype == np.float32
    assert noise.std() * 255 == pytest.approx(sigma, rel=0.02, abs=1e-4)
    assert abs(noise.mean()) * 255 < 0.02 * sigma + 1e-4


def test_noise_is_neither_clipped_nor_rounded():
    noisy = add_gaussian_noise(_image(np.uint8), 50, np.random.default_rng(1))
    assert noisy.min() < -0.2
    assert noisy.max() > 1.2
    assert len(np.unique(noisy)) > 20_000


def test_published_noise_restarts_with_every_image():
    image = _image(np.uint8, 1)
    noise = np.random.RandomState(0).normal(0, 25 / 255, image.shape)
    expected = (image.astype(np.float32) / 255 + noise).astype(np.float32)
    for _ in range(2):
        np.testing.assert_array_equal(add_published_noise(image, 25), expected)
    assert (add_published_noise(image, 25, seed=1) != expected).any()


def test_the_image_stays():
    image = _image(np.uint8)
    add_published_noise(image, 25)
    add_gaussian_noise(image, 25, np.random.default_rng(0))
    np.testing.assert_array_equal(image, _image(np.uint8))
