"""Conversion between stored sRGB levels and linear light, in which optical blur is an average.

IEC 61966-2-1. Blurring the stored levels instead would darken the traces of highlights.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

_LINEAR_PART, _LINEAR_SLOPE, _OFFSET, _EXPONENT = 0.04045, 12.92, 0.055, 2.4


def to_linear(image: np.ndarray) -> np.ndarray:
    """Return the linear light, float32 in [0, 1], of a uint8, uint16 or float image."""
    if image.dtype == np.uint8:
        return _linear_levels()[image]
    if image.dtype == np.uint16:
        image = image / np.float32(65535)
    return _decode(image.astype(np.float32, copy=False))


def from_linear(light: np.ndarray, dtype: npt.DTypeLike) -> np.ndarray:
    """Return the sRGB image of linear light, clipped to [0, 1].

    Integer types are rounded to the nearest of their levels; float32 stays in [0, 1].
    """
    light = np.clip(light, 0, 1)
    power = np.power(light, np.float32(1 / _EXPONENT))
    image = np.where(
        light <= _LINEAR_PART / _LINEAR_SLOPE,
        light * np.float32(_LINEAR_SLOPE),
        power * np.float32(1 + _OFFSET) - np.float32(_OFFSET),
    )
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return image.astype(dtype, copy=False)
    return np.rint(image * np.float32(np.iinfo(dtype).max)).astype(dtype)


def _decode(image: np.ndarray) -> np.ndarray:
    image = np.clip(image, 0, 1)
    power = np.power((image + np.float32(_OFFSET)) / np.float32(1 + _OFFSET), np.float32(_EXPONENT))
    return np.where(image <= _LINEAR_PART, image / np.float32(_LINEAR_SLOPE), power)


@lru_cache(maxsize=1)
def _linear_levels() -> np.ndarray:
    """Return the linear light of the 256 levels: a table takes a tenth of the formula's time."""
    return _decode(np.arange(256, dtype=np.float32) / 255)
