"""Additive white Gaussian noise, neither clipped nor rounded."""

from __future__ import annotations

import numpy as np


def add_gaussian_noise(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Return the uint8 or uint16 image in [0, 1] plus noise, as float32.

    `sigma` is the standard deviation in 8-bit levels (0 to 255).
    """
    noise = rng.standard_normal(image.shape, np.float32)
    return in_unit_range(image) + noise * np.float32(sigma / 255)


def add_published_noise(image: np.ndarray, sigma: float, seed: int = 0) -> np.ndarray:
    """Return the image with the noise of the published denoising benchmarks.

    Their test scripts call `np.random.seed(0)` before each image and add float64 noise to the
    float32 image in place (Restormer, KAIR). Arguments as in `add_gaussian_noise`.
    """
    noise = np.random.RandomState(seed).normal(0, sigma / 255, image.shape)
    noisy = in_unit_range(image)
    noisy += noise
    return noisy


def in_unit_range(image: np.ndarray) -> np.ndarray:
    """Convert uint8 or uint16 to float32 in [0, 1]."""
    return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
