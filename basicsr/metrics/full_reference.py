"""PSNR, mean absolute error, and the variants of structural similarity (Wang et al. 2004, *Image
quality assessment: from error visibility to structural similarity*), all with its usual constants.

The variants differ by up to 0.2 on the same images. `ssim` is the two-dimensional index with an
11 x 11 Gaussian window, whose border and scale the deraining protocols define; volumes, other
windows and masks have metrics with names of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from basicsr.metrics.base import METRIC_REGISTRY, Metric

WINDOW = 11
"""Side of the Gaussian window of SSIM; smaller images have no SSIM without padding."""

_K1, _K2 = 0.01, 0.03
_STRIP = 64  # rows at a time, so that the maps stay in the processor's cache


@METRIC_REGISTRY.register
class PSNR(Metric):
    """Peak signal-to-noise ratio.

    Args:
        of_identical: value for identical images.
    """

    name = "psnr"
    unit = "dB"
    decimals = 2

    def __init__(self, of_identical: float = math.inf) -> None:
        self.of_identical = of_identical

    def __call__(self, restored: np.ndarray, target: np.ndarray | None, peak: float) -> float:
        assert target is not None
        difference = (restored - target).ravel()
        mean_square = float(difference @ difference) / difference.size
        return 10 * math.log10(peak**2 / mean_square) if mean_square else self.of_identical


@METRIC_REGISTRY.register
class MAE(Metric):
    """Mean absolute error over pixels and channels, relative to white."""

    name = "mae"
    better = "lower"
    bounds = (0, 1)

    def __call__(self, restored: np.ndarray, target: np.ndarray | None, peak: float) -> float:
        assert target is not None
        return float(np.abs(restored - target).mean() / peak)


@METRIC_REGISTRY.register
class SSIM(Metric):
    """Structural similarity, mean over positions and channels; 1 for identical images.

    Args:
        border: "valid" averages over the positions where the whole window fits; "zeros" over all,
            with zeros beyond the borders, in single precision (peak 1 only).
        downsample: shrink images of 384 pixels or more first, as Wang's ssim.m of 2009 does.
    """

    name = "ssim"
    bounds = (-1, 1)

    def __init__(
        self, border: Literal["valid", "zeros"] = "valid", downsample: bool = False
    ) -> None:
        self.border = border
        self.downsample = downsample

    def __call__(self, restored: np.ndarray, target: np.ndarray | None, peak: float) -> float:
        assert target is not None
        if self.border == "zeros":
            return zero_padded_ssim(restored, target)
        a, b = (np.atleast_3d(image) for image in (restored, target))
        return float(
            np.mean([self._channel(a[..., c], b[..., c], peak) for c in range(a.shape[2])])
        )

    def _channel(self, a: np.ndarray, b: np.ndarray, peak: float) -> float:
        if self.downsample:
            a, b = downsampled(a), downsampled(b)
        return ssim(a, b, peak)


@METRIC_REGISTRY.register
class VolumeSSIM(Metric):
    """SSIM of the H x W x C array as one volume, as MATLAB's `ssim` computes it for RGB images.

    The Gaussian window also extends over the channels: 11 x 11 x 11, with border values repeated
    along all three axes. On RGB images it is higher than two-dimensional SSIM, by up to 0.2.
    """

    name = "ssim_3d"
    bounds = (-1, 1)

    def __call__(self, restored: np.ndarray, target: np.ndarray | None, peak: float) -> float:
        assert target is not None
        return volume_ssim(restored, target, peak)


@METRIC_REGISTRY.register
class UniformSSIM(Metric):
    """SSIM as scikit-image computes it by default: uniform window, sample covariance.

    The window has 7 x 7 pixels; mean over the positions where it fits and over the channels.
    """

    name = "ssim_uniform"
    bounds = (-1, 1)

    def __call__(self, restored: np.ndarray, target: np.ndarray | None, peak: float) -> float:
        from skimage.metrics import structural_similarity

        return float(structural_similarity(target, restored, data_range=peak, channel_axis=-1))


@METRIC_REGISTRY.register
class GaussianSSIM(Metric):
    """SSIM as scikit-image computes it with Gaussian weights, on a part of the image.

    The window is that of `ssim`: 11 x 11 pixels, sigma 1.5, population covariance.
    """

    name = "ssim_gaussian"
    bounds = (-1, 1)

    def __call__(
        self,
        restored: np.ndarray,
        target: np.ndarray | None,
        peak: float,
        mask: np.ndarray | None = None,
    ) -> float:
        """Return the mean over the positions where the window fits and over the channels.

        Args:
            restored: H x W x C.
            target: H x W x C.
            peak: the value of white.
            mask: H x W, True at the positions to average over (default: all). The window may
                extend beyond them.
        """
        from skimage.metrics import structural_similarity

        _, similarity = structural_similarity(
            *(target, restored),
            data_range=peak,
            channel_axis=-1,
            gaussian_weights=True,
            use_sample_covariance=False,
            full=True,
        )
        fits = slice(WINDOW // 2, -(WINDOW // 2))
        similarity = similarity[fits, fits]
        return float((similarity if mask is None else similarity[mask[fits, fits]]).mean())


def ssim(a: np.ndarray, b: np.ndarray, peak: float) -> float:
    """Return the mean SSIM of two float64 images (H x W) where the whole window fits."""
    height, width = (side - WINDOW + 1 for side in a.shape)
    overlap = WINDOW - 1
    total = 0.0
    for top in range(0, height, _STRIP):
        strip = slice(top, top + _STRIP + overlap)
        total += _ssim_map(a[strip], b[strip], peak, _windowed_mean).sum()
    return float(total / (height * width))


def volume_ssim(a: np.ndarray, b: np.ndarray, peak: float) -> float:
    """Return the mean SSIM of two float64 volumes (H x W x C), border values repeated."""
    border = WINDOW // 2
    rows = [(border, border), (0, 0), (0, 0)]
    padded_a, padded_b = (np.pad(volume, rows, "edge") for volume in (a, b))
    total = 0.0
    for top in range(0, len(a), _STRIP):
        strip = slice(top, top + _STRIP + 2 * border)
        total += _ssim_map(padded_a[strip], padded_b[strip], peak, _volume_mean).sum()
    return float(total / a.size)


def downsampled(image: np.ndarray) -> np.ndarray:
    """Shrink H x W to H / f x W / f by a box filter, where f is the smaller side / 256, rounded.

    For an even f, MATLAB's imfilter centres the box on the pixel before its middle.
    """
    import cv2  # here, so that importing the library does not load OpenCV

    factor = max(1, math.floor(min(image.shape) / 256 + 0.5))
    centre = ((factor - 1) // 2,) * 2
    filtered = cv2.blur(image, (factor, factor), anchor=centre, borderType=cv2.BORDER_REFLECT)
    return filtered[::factor, ::factor]


def zero_padded_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean SSIM of two images in [0, 1] (H x W x C), zeros beyond the borders.

    This is the SSIM of the training code of PReNet and DTPNet (Po-Hsun Su's pytorch-ssim), in
    single precision. The variances of flat regions are smaller there than the rounding of the mean
    squares that they are computed from, which moves the mean by up to 2e-5. Published scores
    contain this error, so it is reproduced: a two-dimensional window and sums in single precision.
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


def _gaussian(dtype: type[np.floating] = np.float64) -> np.ndarray:
    """Return one axis of the separable window (sigma 1.5), normalised."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * 1.5**2)).astype(dtype)
    return weights / weights.sum(dtype=np.float64).astype(dtype)


def _ssim_map(
    a: np.ndarray, b: np.ndarray, peak: float, mean: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return the SSIM at every position, with the window of the filter `mean`.

    Only the sum of the two variances is needed, so four filtered images suffice instead of five.
    """
    mean_a, mean_b, squares, product = (mean(x) for x in (a, b, a * a + b * b, a * b))
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    mean_product = mean_a * mean_b
    mean_squares = mean_a * mean_a + mean_b * mean_b
    luminance = (2 * mean_product + c1) / (mean_squares + c1)
    contrast = (2 * (product - mean_product) + c2) / (squares - mean_squares + c2)
    return luminance * contrast


def _windowed_mean(image: np.ndarray) -> np.ndarray:
    """Filter H x W to (H - 10) x (W - 10)."""
    import cv2

    border = WINDOW // 2
    window = _gaussian()
    filtered = cv2.sepFilter2D(image, cv2.CV_64F, window, window)
    return filtered[border:-border, border:-border]


def _volume_mean(volume: np.ndarray) -> np.ndarray:
    """Filter H x W x C to (H - 10) x W x C, repeating the border values of W and C."""
    from scipy.ndimage import correlate1d

    border = WINDOW // 2
    for axis in range(3):
        volume = correlate1d(volume, _gaussian(), axis, mode="nearest")
    return volume[border:-border]
