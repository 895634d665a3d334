"""Sampling of training patches: order of an epoch, splits, schedule, and random crops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from basicsr.data.base import ORDER, ImagePair, generator
from basicsr.io.images import natural_key
from basicsr.utils.errors import DataError, OptionsError

Split = Literal["all", "train", "val"]
Item = TypeVar("Item")
VAL_EVERY = 10
# sizes in bytes of the pixels that cv2.transpose supports
_TRANSPOSABLE = frozenset({1, 2, 3, 4, 6, 8, 12, 16, 24, 32})


class SampleStage(NamedTuple):
    """Stage of a SampleSchedule: `iters` iterations on `batch_size` patches of `size` x `size`.

    `batch_size` is global, over all ranks and micro-batches.
    """

    size: int
    batch_size: int
    iters: int


class Draw(NamedTuple):
    """One training sample: a patch of `size` from image number `image`, in `epoch`."""

    epoch: int
    image: int
    size: int


class SampleSchedule:
    """Draws of one rank, one list per micro-batch, from iteration `start` to the last.

    Sample number n of a run, counted over all iterations of all stages, is image
    `epoch_order(n // length)[n % length]`, where `length` is the number of images.

    Raises OptionsError if a batch cannot be shared evenly.
    """

    def __init__(
        self,
        stages: Sequence[SampleStage],
        length: int,
        seed: int,
        *,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
        micro_batches: int = 1,
    ) -> None:
        shares = world_size * micro_batches
        for stage in stages:
            if stage.batch_size % shares:
                raise OptionsError(
                    f"patches: batch_size {stage.batch_size} cannot be shared by {world_size} "
                    f"ranks x {micro_batches} micro-batches; use a multiple of {shares}"
                )
        self.stages, self.length, self.seed, self.start = stages, length, seed, start
        self.rank, self.micro_batches, self.shares = rank, micro_batches, shares

    def __iter__(self) -> Iterator[list[Draw]]:
        first_iteration = first_sample = 0
        for stage in self.stages:
            share = stage.batch_size // self.shares
            for iteration in range(max(self.start - first_iteration, 0), stage.iters):
                batch = first_sample + iteration * stage.batch_size
                for micro_batch in range(self.micro_batches):
                    sample = batch + (self.rank * self.micro_batches + micro_batch) * share
                    yield [self._draw(sample + i, stage.size) for i in range(share)]
            first_iteration += stage.iters
            first_sample += stage.iters * stage.batch_size

    def _draw(self, sample: int, size: int) -> Draw:
        epoch, position = divmod(sample, self.length)
        order = epoch_order(epoch, self.length, self.seed)
        return Draw(epoch, int(order[position]), size)


@lru_cache(maxsize=2)
def epoch_order(epoch: int, length: int, seed: int) -> np.ndarray:
    """Return the permutation in which an epoch visits `length` images; it must not be changed."""
    return generator(ORDER, seed, epoch).permutation(length)


def choose(split: Split, items: Sequence[Item], gt: Sequence[str]) -> list[Item]:
    """Return the items of a split, in their order; `gt` names the ground truth of each.

    Every tenth ground truth, in natural order, is for validation together with all degraded
    versions of it; the rest is for training. Raises DataError if the split is empty.
    """
    if split == "all":
        return list(items)
    val = set(sorted(set(gt), key=natural_key)[::VAL_EVERY])
    chosen = [
        item for item, name in zip(items, gt, strict=True) if (name in val) == (split == "val")
    ]
    if not chosen:
        raise DataError(f"split {split} is empty: the only ground truth is {gt[0]}; use split: all")
    return chosen


def draw_patch(
    pair: ImagePair, size: int, rng: np.random.Generator, *, use_hflip: bool, use_rot: bool
) -> ImagePair:
    """Crop both images at the same random position, and flip them the same way.

    An image smaller than the patch is extended by reflection, as in Restormer. The random numbers
    do not depend on the flags.

    Args:
        pair: images of any channels and types.
        size: side of the patch.
        rng: random generator of this sample.
        use_hflip: mirror half of the patches.
        use_rot: turn half of them upside down and transpose half; with `use_hflip` this gives all
            eight orientations, as in BasicSR.
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
    """Flip, then transpose an H x W x C patch; returns a contiguous array.

    OpenCV takes a tenth of NumPy's time for three interleaved channels.
    """
    import cv2  # here, so that importing the library does not load OpenCV

    channels = patch.shape[2]
    if mirror or upside_down:
        patch = cv2.flip(patch, -1 if mirror and upside_down else int(mirror))
    if transpose and channels * patch.itemsize in _TRANSPOSABLE:
        patch = cv2.transpose(patch)
    elif transpose:
        patch = patch.swapaxes(0, 1)
    patch = np.ascontiguousarray(patch)
    return patch if patch.ndim == 3 else patch[..., None]  # OpenCV drops a single channel's axis


def _reflected(image: np.ndarray, height: int, width: int) -> np.ndarray:
    below, right = height - image.shape[0], width - image.shape[1]
    if below or right:
        return np.pad(image, ((0, below), (0, right), (0, 0)), mode="reflect")
    return image
