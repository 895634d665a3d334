"""Structural similarity (Wang et al. 2004, *Image quality assessment: from error visibility to
structural similarity*) with its usual constants."""

from __future__ import annotations

import numpy as np

WINDOW = 11
"""Side of the gaussian window; smaller images have no `valid` SSIM."""

_K1, _K2 = 0.01, 0.03
_STRIP = 64  # rows at a time, so that the maps stay in the processor's cache


def _gaussian(dtype: type[np.floating] = np.float64) -> np.ndarray:
    """One axis of the normalised window (sigma 1.5); two of them make the window."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * 1.5**2)).astype(dtype)
    return weights / weights.sum(dtype=np.float64).astype(dtype)


def ssim(a: np.ndarray, b: np.ndarray, data_range: float) -> float:
    """Mean SSIM of two float64 images (H x W), at the positions where the whole window fits."""
    height, width = (side - WINDOW + 1 for side in a.shape)
    overlap = WINDOW - 1
    total = 0.0
    for top in range(0, height, _STRIP):
        strip = slice(top, top + _STRIP + overlap)
        total += _index(a[strip], b[strip], data_range).sum()
    return float(total / (height * width))


def _index(a: np.ndarray, b: np.ndarray, data_range: float) -> np.ndarray:
    """The SSIM map. It needs the variances only as their sum: four filtered maps do, not five."""
    mean_a, mean_b, squares, product = (_windowed_mean(x) for x in (a, b, a * a + b * b, a * b))
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    mean_product = mean_a * mean_b
    mean_squares = mean_a * mean_a + mean_b * mean_b
    luminance = (2 * mean_product + c1) / (mean_squares + c1)
    contrast = (2 * (product - mean_product) + c2) / (squares - mean_squares + c2)
    return luminance * contrast


def _windowed_mean(image: np.ndarray) -> np.ndarray:
    """H x W -> (H - 10) x (W - 10)."""
    import cv2  # here, so that importing the library does not load OpenCV

    border = WINDOW // 2
    window = _gaussian()
    filtered = cv2.sepFilter2D(image, cv2.CV_64F, window, window)
    return filtered[border:-border, border:-border]


def zero_padded_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Mean SSIM of two images in [0, 1] (H x W x C) at every position, zeros beyond the borders.

    This is the training code's SSIM (Po-Hsun Su's pytorch-ssim), which works in single precision.
    Variances of flat regions are smaller there than the rounding of the mean squares they are
    taken from, and this moves the mean by up to 2e-5. Published scores contain that, so it is kept:
    a two-dimensional single precision window, summed up in single precision.
    """
    import cv2

    axis = _gaussian(np.float32)
    window = np.outer(axis, axis)

    def mean(image: np.ndarray) -> np.ndarray:
        return cv2.filter2D(image, cv2.CV_32F, window, borderType=cv2.BORDER_CONSTANT)

    a, b = a.astype(np.float32), b.astype(np.float32)
    mean_a, mean_b = mean(a), mean(b)
    square_a, square_b, mean_product = mean_a * mean_a, mean_b * mean_b, mean_a * mean_b
    variance_a, variance_b = mean(a * a) - square_a, mean(b * b) - square_b
    covariance = mean(a * b) - mean_product
    c1, c2 = np.float32(_K1**2), np.float32(_K2**2)
    luminance = (2 * mean_product + c1) / (square_a + square_b + c1)
    contrast = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return float((luminance * contrast).mean(dtype=np.float64))
