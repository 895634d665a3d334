"""NIQE (Mittal, Soundararajan and Bovik, *Making a "completely blind" image quality analyzer*, IEEE
Signal Processing Letters 2013): the distance of an image's statistics from those of photographs.

The model of photographs is the authors' release; `niqe_LICENSE.txt` has its terms.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np

from basicsr.metrics.base import METRIC_REGISTRY, Metric
from basicsr.utils.errors import DataError

BLOCK = 96
"""Side of the blocks in pixels; each block gives one sample of the features."""

_GRAY = np.array([0.298936021293775, 0.587043074451121, 0.114020904255103])  # MATLAB's rgb2gray
_WINDOW, _SIGMA = 7, 7 / 6
_SHAPES = np.arange(200, 10001) / 1000  # candidates for the shape of the generalised Gaussian
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))  # row and column offsets of the products


@METRIC_REGISTRY.register
class NIQE(Metric):
    """Natural image quality evaluator, on 8-bit gray levels.

    Images with flat regions (saturated or black) have no stable score: the sign of differences
    around zero depends on the order of summation there, which moves the score by up to 0.1.
    """

    name = "niqe"
    better = "lower"
    decimals = 3
    needs_reference = False
    bounds = (0, math.inf)

    def __call__(self, restored: np.ndarray, target: np.ndarray | None, peak: float) -> float:
        features = image_features(gray_levels(restored))
        complete = features[~np.isnan(features).any(axis=1)]
        if len(complete) < 2:
            raise DataError("NIQE is undefined for an image whose blocks are flat")
        features_mean = np.nanmean(features, axis=0)
        covariance = np.cov(complete, rowvar=False)
        model_mean, model_covariance = _model()
        difference = model_mean - features_mean
        inverse = np.linalg.pinv((model_covariance + covariance) / 2)
        return float(np.sqrt(difference @ inverse @ difference))


@functools.cache
def _model() -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance of the features of photographs."""
    import scipy.io

    model = scipy.io.loadmat(Path(__file__).parent / "niqe_parameters.mat")
    return model["mu_prisparam"][0], model["cov_prisparam"]


def gray_levels(image: np.ndarray) -> np.ndarray:
    """Return rounded gray levels, H x W float64, of an 8-bit image with 1 or 3 channels."""
    if image.shape[2] == 1:
        return image[:, :, 0].astype(np.float64)
    return np.floor(image @ _GRAY + 0.5)


def image_features(gray: np.ndarray) -> np.ndarray:
    """Return blocks x 36: 18 features of each block at full size, and 18 at half size."""
    height, width = (side // BLOCK * BLOCK for side in gray.shape)
    gray = gray[:height, :width]
    per_scale = []
    for block in (BLOCK, BLOCK // 2):
        normalised = _normalised(gray)
        blocks = [
            normalised[top : top + block, left : left + block]
            for left in range(0, gray.shape[1], block)
            for top in range(0, gray.shape[0], block)
        ]
        per_scale.append([_block_features(each) for each in blocks])
        gray = _halved(gray)
    return np.concatenate([np.array(features) for features in per_scale], axis=1)


def _normalised(gray: np.ndarray) -> np.ndarray:
    """Subtract the local mean and divide by the local standard deviation plus one."""
    from scipy.ndimage import correlate1d

    offsets = np.arange(_WINDOW) - _WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    weights /= weights.sum()

    def mean(image: np.ndarray) -> np.ndarray:
        return correlate1d(
            correlate1d(image, weights, axis=0, mode="nearest"), weights, axis=1, mode="nearest"
        )

    local = mean(gray)
    deviation = np.sqrt(np.abs(mean(gray * gray) - local * local))
    return (gray - local) / (deviation + 1)


def _block_features(block: np.ndarray) -> list[float]:
    """Return the fits of a block and of its products with four neighbours: 2 + 4 * 4 numbers."""
    from scipy.special import gamma

    shape, left, right = _fit(block)
    features = [shape, (left + right) / 2]
    for shift in _NEIGHBOURS:
        shape, left, right = _fit(block * np.roll(block, shift, axis=(0, 1)))
        mean = (right - left) * gamma(2 / shape) / gamma(1 / shape)
        features += [shape, mean, left, right]
    return features


def _fit(values: np.ndarray) -> tuple[float, float, float]:
    """Fit an asymmetric generalised Gaussian; return its shape and its left and right scale.

    Moment matching (Lasmar, Stitou and Berthoumieu 2009) on a grid of shapes.
    """
    from scipy.special import gamma

    with np.errstate(invalid="ignore"):  # a flat block
        left = np.sqrt(np.square(values[values < 0]).mean()) if (values < 0).any() else np.nan
        right = np.sqrt(np.square(values[values > 0]).mean()) if (values > 0).any() else np.nan
        ratio = left / right
        moments = np.abs(values).mean() ** 2 / np.square(values).mean()
    asymmetric = moments * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shape = _SHAPES[np.argmin((_moment_ratios() - asymmetric) ** 2)]  # NaN: the first, as MATLAB
    scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return float(shape), float(left * scale), float(right * scale)


@functools.cache
def _moment_ratios() -> np.ndarray:
    """Return (E|x|)^2 / E(x^2) of the generalised Gaussian of each candidate shape."""
    from scipy.special import gamma

    return gamma(2 / _SHAPES) ** 2 / (gamma(1 / _SHAPES) * gamma(3 / _SHAPES))


def _halved(image: np.ndarray) -> np.ndarray:
    """Halve both sides (even numbers of pixels), as MATLAB's imresize(image, 0.5) does.

    Bicubic interpolation whose kernel is widened against aliasing, mirrored borders.
    """
    # distances of the eight pixels around the centre of an output pixel, in output pixels
    distances = np.abs(np.arange(-3.5, 4)) / 2
    near = 1.5 * distances**3 - 2.5 * distances**2 + 1
    far = -0.5 * distances**3 + 2.5 * distances**2 - 4 * distances + 2
    weights = np.where(distances <= 1, near, far)
    weights /= weights.sum()
    for axis in (0, 1):
        borders = [(3, 3) if each == axis else (0, 0) for each in (0, 1)]
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(image, borders, mode="symmetric"), 8, axis=axis
        )
        image = np.take(windows, range(0, windows.shape[axis], 2), axis=axis) @ weights
    return image
