"""Pairs of rainy and clean images on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from basicsr.data.base import ImagePair, RestorationDataset
from basicsr.data.decode_cache import CacheKind, DecodeCache
from basicsr.data.layouts import PairFiles, match, match_folders
from basicsr.data.sampling import Split, choose
from basicsr.io.images import read_image
from basicsr.utils.errors import DataError, OptionsError
from basicsr.utils.registry import DATASET_REGISTRY


@DATASET_REGISTRY.register
class PairedImageDataset(RestorationDataset):
    """Pairs of a public data set (`dataroot` and `layout`) or of two folders with equal names.

    `split` halves by clean image, so that no scene is in both `train` and `val`. Raises
    OptionsError unless exactly one way to find the pairs is given, DataError where they are not
    found.
    """

    def __init__(
        self,
        dataroot: str | None = None,
        layout: str | None = None,
        dataroot_lq: str | None = None,
        dataroot_gt: str | None = None,
        split: Split = "all",
        cache: CacheKind = "none",
        cache_gib: float = 4.0,
    ) -> None:
        by_layout, by_folders = (dataroot, layout), (dataroot_lq, dataroot_gt)
        if None not in by_layout and by_folders == (None, None):
            pairs = match(str(dataroot), str(layout)).complete()
        elif None not in by_folders and by_layout == (None, None):
            pairs = match_folders(str(dataroot_lq), str(dataroot_gt)).complete()
        else:
            raise OptionsError(
                "PairedImageDataset takes dataroot and layout, or dataroot_lq and dataroot_gt"
            )
        self.pairs = choose(split, pairs, [str(pair.gt) for pair in pairs])
        self.names = [pair.name for pair in self.pairs]
        self.description = f"lq side: {self.pairs[0].lq_side}"
        files = {path for pair in self.pairs for path in (pair.lq, pair.gt)}
        self._decode = DecodeCache(files, cache, cache_gib)

    def read(self, index: int) -> ImagePair:
        return read_pair(self.pairs[index], self._decode)

    def files(self, index: int) -> Sequence[Path]:
        pair = self.pairs[index]
        return tuple(dict.fromkeys((pair.lq, pair.gt)))  # one file may hold both


def read_pair(files: PairFiles, decode: Callable[[Path], np.ndarray] = read_image) -> ImagePair:
    """Both images of a pair. Raises DataError where they have different sizes."""
    if files.lq_side:
        lq, gt = _halves(decode(files.lq), files)
    else:
        lq, gt = decode(files.lq), decode(files.gt)
    if lq.shape != gt.shape:
        raise DataError(
            f"{files.lq} is {_size(lq)} but {files.gt} is {_size(gt)}; a pair must have one size"
        )
    return ImagePair(lq, gt)


def _halves(both: np.ndarray, files: PairFiles) -> tuple[np.ndarray, np.ndarray]:
    width = both.shape[1]
    if width % 2:
        raise DataError(f"{files.lq}: two images side by side cannot be {width} pixels wide")
    left, right = both[:, : width // 2], both[:, width // 2 :]
    return (left, right) if files.lq_side == "left" else (right, left)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
