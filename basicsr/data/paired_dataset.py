"""Data set of image pairs on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from basicsr.data.base import ImagePair, RestorationDataset
from basicsr.data.decode_cache import CacheKind, DecodeCache
from basicsr.data.layouts import PairFiles, Pairing, match, match_folders
from basicsr.data.pairing import PairingRule, guessed_rule, match_list, match_rule
from basicsr.data.sampling import Split, choose
from basicsr.data.stored_images import StoredImages, warn_of_reduced_depth
from basicsr.io.images import BitDepth, Color, read_image
from basicsr.utils.errors import DataError, OptionsError
from basicsr.utils.files import expanded
from basicsr.utils.ranges import Gibibytes
from basicsr.utils.registry import DATASET_REGISTRY


@DATASET_REGISTRY.register
class PairedImageDataset(RestorationDataset):
    """Pairs of a public data set (`dataroot` and `layout`) or of folders with equal file names.

    Folders may be LMDBs in BasicSR's layout, whose names end in `.lmdb`.

    Args:
        dataroot: root folder of a public data set; with `pairing` or `meta_info_file`, the folder
            of the degraded images and of the ground truth.
        layout: its name; see `basicsr.data.layouts`.
        dataroot_lq: folder of the degraded images; a list of two folders, left and right view,
            makes an `lq` with the channels of both.
        dataroot_gt: folder of the ground truth.
        pairing: names of the files of a pair, where they are not equal; see `PairingRule`.
        meta_info_file: text file with the ground truth files, or the pairs, to use; see
            `match_list`.
        split: "train" and "val" split by ground truth, so that no scene is in both.
        color: "rgb", "gray", or "as_stored" in the files, which must then agree on each side.
        bit_depth: 8, 16, or "as_stored" in the files, which must then all agree.
        cache: where decoded images are kept; see `DecodeCache`.
        cache_gib: size of the cache.

    Raises:
        OptionsError: not exactly one way to find the pairs is given.
        DataError: the pairs are not found, or do not agree.
    """

    def __init__(
        self,
        dataroot: str | None = None,
        layout: str | None = None,
        dataroot_lq: str | tuple[str, str] | None = None,
        dataroot_gt: str | None = None,
        pairing: PairingRule | None = None,
        meta_info_file: str | None = None,
        split: Split = "all",
        color: Color = "rgb",
        bit_depth: BitDepth = 8,
        cache: CacheKind = "none",
        cache_gib: Gibibytes = 4.0,
    ) -> None:
        if layout is not None:
            found = _in_layout(dataroot, layout, dataroot_lq, dataroot_gt, pairing, meta_info_file)
        else:
            lq, gt, right = _folders(dataroot, dataroot_lq, dataroot_gt)
            found = _in_folders(lq, gt, right, pairing, meta_info_file)
        pairs = found.complete()
        self.pairs = choose(split, pairs, [str(pair.gt) for pair in pairs])
        self.names = [pair.name for pair in self.pairs]
        first = self.pairs[0]
        self.description = f"lq side: {first.lq_side}, color: {color}, bit_depth: {bit_depth}"
        lq_files = [path for pair in self.pairs for path in _lq_files(pair)]
        gt_files = [pair.gt for pair in self.pairs]
        decode = DecodeCache({*lq_files, *gt_files}, cache, cache_gib, color, bit_depth)
        self._lq, self._gt = StoredImages(lq_files, decode), StoredImages(gt_files, decode)
        if self._lq.bit_depth != self._gt.bit_depth:
            raise DataError(
                f"{self._lq.example} has {self._lq.bit_depth} bits per channel but "
                f"{self._gt.example} has {self._gt.bit_depth}; set bit_depth: 8 or 16"
            )
        warn_of_reduced_depth(self._lq, self._gt)
        self.bit_depth = self._gt.bit_depth
        self.lq_channels = self._lq.channels * len(_lq_files(first))
        self.gt_channels = self._gt.channels

    def read(self, index: int) -> ImagePair:
        return read_pair(self.pairs[index], self._lq, self._gt)

    def files(self, index: int) -> Sequence[Path]:
        pair = self.pairs[index]
        return tuple(dict.fromkeys((*_lq_files(pair), pair.gt)))  # one file may hold both


def read_pair(
    files: PairFiles,
    read_lq: Callable[[Path], np.ndarray] = read_image,
    read_gt: Callable[[Path], np.ndarray] | None = None,
) -> ImagePair:
    """Read both images of a pair; `read_lq` reads `gt` too if there is no `read_gt`.

    Raises DataError if their sizes differ.
    """
    lq = read_lq(files.lq)
    if files.lq_side:
        return _halves(lq, files)
    if files.lq_right is not None:
        right = read_lq(files.lq_right)
        _require_same_size(lq, files.lq, right, files.lq_right, "both views")
        lq = np.concatenate([lq, right], axis=2)
    gt = (read_gt or read_lq)(files.gt)
    _require_same_size(lq, files.lq, gt, files.gt, "a pair")
    return ImagePair(lq, gt)


_WAYS = (
    "PairedImageDataset takes dataroot and layout, or dataroot_lq and dataroot_gt (with pairing if "
    "names differ), or dataroot and pairing or meta_info_file"
)


def _in_layout(dataroot: str | None, layout: str, *others: object) -> Pairing:
    if dataroot is None or any(other is not None for other in others):
        raise OptionsError(_WAYS)
    return match(dataroot, layout)


def _folders(
    dataroot: str | None, dataroot_lq: str | tuple[str, str] | None, dataroot_gt: str | None
) -> tuple[Path, Path, Path | None]:
    """Return the folders of the degraded images, of the ground truth and of the right views."""
    if dataroot is not None and dataroot_lq is None and dataroot_gt is None:
        return expanded(dataroot), expanded(dataroot), None
    if dataroot is not None or dataroot_lq is None or dataroot_gt is None:
        raise OptionsError(_WAYS)
    if isinstance(dataroot_lq, str):
        return expanded(dataroot_lq), expanded(dataroot_gt), None
    left, right = dataroot_lq
    return expanded(left), expanded(dataroot_gt), expanded(right)


def _in_folders(
    lq: Path, gt: Path, right: Path | None, rule: PairingRule | None, list_file: str | None
) -> Pairing:
    if right is not None and (rule is not None or list_file is not None):
        raise OptionsError("PairedImageDataset: two views need equal names, without pairing")
    if list_file is not None:
        file = expanded(list_file)
        beside = gt / file
        return match_list(file if file.is_file() or not beside.is_file() else beside, lq, gt, rule)
    if rule is not None:
        return match_rule(rule, lq, gt)
    if lq == gt:
        raise OptionsError(f"{_WAYS}; without these, {lq} cannot be the folder of both images")
    found = match_folders(lq, gt, right)
    if not found.pairs and (guess := guessed_rule(lq, gt)):
        return found._replace(
            expected=f"equal names, or pairing: {{lq: '{guess['lq']}', gt: '{guess['gt']}'}}"
        )
    return found


def _lq_files(pair: PairFiles) -> tuple[Path, ...]:
    return (pair.lq,) if pair.lq_right is None else (pair.lq, pair.lq_right)


def _halves(both: np.ndarray, files: PairFiles) -> ImagePair:
    width = both.shape[1]
    if width % 2:
        raise DataError(f"{files.lq}: two images side by side cannot be {width} pixels wide")
    left, right = both[:, : width // 2], both[:, width // 2 :]
    return ImagePair(left, right) if files.lq_side == "left" else ImagePair(right, left)


def _require_same_size(
    image: np.ndarray, path: Path, other: np.ndarray, other_path: Path, what: str
) -> None:
    if image.shape[:2] != other.shape[:2]:
        raise DataError(
            f"{path} is {_size(image)} but {other_path} is {_size(other)}; "
            f"{what} must have one size"
        )


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
