"""What is drawn from a data set: random streams, the order of an epoch, splits and patches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, TypeVar

import numpy as np

from basicsr.data.base import ORDER, ImagePair, generator
from basicsr.io.images import natural_key
from basicsr.utils.errors import DataError


@lru_cache(maxsize=2)
def order_of(epoch: int, length: int, seed: int) -> np.ndarray:
    """The permutation of `length` samples in which an epoch visits them, not to be changed."""
    return generator(ORDER, seed, epoch).permutation(length)


Split = Literal["all", "train", "val"]
Item = TypeVar("Item")
VAL_EVERY = 10


def choose(split: Split, items: Sequence[Item], clean: Sequence[str]) -> list[Item]:
    """The items of a split, in their order; `clean` names the clean image of each.

    Every tenth clean image, in natural order, is for validation together with all rainy versions
    of it; the rest is for training.
    """
    if split == "all":
        return list(items)
    val = set(sorted(set(clean), key=natural_key)[::VAL_EVERY])
    chosen = [
        item for item, name in zip(items, clean, strict=True) if (name in val) == (split == "val")
    ]
    if not chosen:
        raise DataError(
            f"split {split} is empty: the only clean image is {clean[0]}; use split: all"
        )
    return chosen


def draw_patch(
    pair: ImagePair, size: int, rng: np.random.Generator, *, use_hflip: bool, use_rot: bool
) -> ImagePair:
    """A `size` x `size` patch from the same random place of both images, flipped the same way.

    `use_hflip` mirrors half of the patches; `use_rot` turns half of them upside down and transposes
    half, which together gives all eight orientations, as in BasicSR. An image smaller than the
    patch is continued by reflection, as in Restormer. The draws do not depend on the flags.
    """
    height, width = (max(side, size) for side in pair.lq.shape[:2])
    top = int(rng.integers(height - size + 1))
    left = int(rng.integers(width - size + 1))
    mirror, upside_down, transpose = rng.random(3) < 0.5

    def cut(image: np.ndarray) -> np.ndarray:
        patch = _reflected(image, height, width)[top : top + size, left : left + size]
        return turned(
            patch,
            mirror=use_hflip and mirror,
            upside_down=use_rot and upside_down,
            transpose=use_rot and transpose,
        )

    return ImagePair(cut(pair.lq), None if pair.gt is None else cut(pair.gt))


def turned(patch: np.ndarray, *, mirror: bool, upside_down: bool, transpose: bool) -> np.ndarray:
    """The H x W x 3 patch flipped, then transposed; a contiguous array.

    By OpenCV, which takes a tenth of NumPy's time for three interleaved channels.
    """
    import cv2  # here, so that importing the library does not load OpenCV

    if mirror or upside_down:
        patch = cv2.flip(patch, -1 if mirror and upside_down else int(mirror))
    return cv2.transpose(patch) if transpose else np.ascontiguousarray(patch)


def _reflected(image: np.ndarray, height: int, width: int) -> np.ndarray:
    below, right = height - image.shape[0], width - image.shape[1]
    if below or right:
        return np.pad(image, ((0, below), (0, right), (0, 0)), mode="reflect")
    return image
