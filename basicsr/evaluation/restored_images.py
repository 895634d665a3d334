"""Restored images on disk, paired with their ground truth."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from basicsr.data.layouts import (
    LAYOUTS,
    Folders,
    PairFiles,
    Pairing,
    Side,
    SideBySide,
    match,
    match_folders,
)
from basicsr.io.images import BitDepth, Color, image_size, images_by_stem, read_image
from basicsr.io.mat_blocks import SiddBlocks, block_names
from basicsr.utils.errors import DataError
from basicsr.utils.registry import suggest

logger = logging.getLogger("basicsr")


class BlockPair(NamedTuple):
    """Place of a restored block and of its ground truth in SIDD's MATLAB files."""

    restored: SiddBlocks
    gt: SiddBlocks
    position: tuple[int, int]


class RestoredImage(NamedTuple):
    """Files of a restored image and of its ground truth, if there is one.

    `lq_side` is set where the degraded image is the other half of the ground truth's file, `block`
    where the files hold blocks of SIDD.
    """

    name: str
    restored: Path
    gt: Path | None = None
    lq_side: Side | None = None
    block: BlockPair | None = None

    def read(
        self, color: Color = "as_stored", bit_depth: BitDepth = "as_stored"
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the restored image and the ground truth.

        The ground truth of an image stored in gray is read in gray. The arguments are those of
        `read_image`, for image files. Raises DataError for unreadable files.
        """
        if self.block is not None:
            position = self.block.position
            return self.block.restored[position], self.block.gt[position]
        restored = read_image(self.restored, color, bit_depth)
        if self.gt is None:
            return restored, None
        gt = read_image(self.gt, "gray" if restored.shape[2] == 1 else "rgb", bit_depth)
        half = gt.shape[1] // 2
        if self.lq_side is not None:
            gt = gt[:, half:] if self.lq_side == "left" else gt[:, :half]
        return restored, gt


def match_blocks(restored: Path, gt: Path) -> list[RestoredImage]:
    """Pair the blocks of two SIDD files, the restored ones and the ground truth.

    Raises DataError if a file is missing or not as expected, or if they have different shapes.
    """
    files = SiddBlocks(restored), SiddBlocks(gt)
    if files[0].shape != files[1].shape:
        raise DataError(f"{restored} has blocks of {files[0].shape} but {gt} of {files[1].shape}")
    for blocks in files:
        blocks[0, 0]  # prepares the file, before threads read from it
    return [
        RestoredImage(name, restored, gt, block=BlockPair(*files, position))
        for name, position in block_names(files[0].shape).items()
    ]


def list_restored(folder: str | Path) -> list[RestoredImage]:
    """Return the images of a folder, without ground truth."""
    files = images_by_stem(Path(folder))
    return [RestoredImage(name, file) for name, file in files.items()]


def match_restored(
    restored: str | Path,
    gt: str | Path,
    layout: str | None = None,
    allow_missing: bool = False,
) -> list[RestoredImage]:
    """Pair restored images, which have the names of the degraded ones, with their ground truth.

    Args:
        restored: folder of the restored images.
        gt: folder of the ground truth, or with a layout the root of the data set.
        layout: data set whose rules for names hold; without it, files of equal names (suffixes
            apart) are a pair.
        allow_missing: leave out files without a partner, with a warning.

    Raises:
        DataError: if the layout is unknown, files have no partner, or there is no pair at all.
    """
    if layout is None:
        return _pairs(match_folders(restored, gt), restored, gt, allow_missing)
    if layout not in LAYOUTS:
        raise DataError(
            f"no layout is called '{layout}'{suggest(layout, LAYOUTS)}; known: {', '.join(LAYOUTS)}"
        )
    forms = LAYOUTS[layout]
    matched = [_match(form, restored, gt) for form in forms if isinstance(form, Folders)]
    best = min(matched, key=lambda each: len(each.lq_alone) + len(each.gt_alone), default=None)
    is_root = any(form.is_present(Path(gt)) for form in forms)
    if best is None or (is_root and not best.pairs):
        best = _match_root(restored, match(gt, layout))
    pairs = _pairs(best, restored, gt, allow_missing)
    side = next((form.lq_side for form in forms if isinstance(form, SideBySide)), None)
    if side is not None and _is_side_by_side(pairs[0]):
        return [pair._replace(lq_side=side) for pair in pairs]
    return pairs


def _match(form: Folders, restored: str | Path, gt: str | Path) -> Pairing:
    """Match other folders than the layout's own by its rules for names."""
    found = form._replace(lq_folder=str(restored), gt_folder=str(gt), right_folder=None).match(
        Path(".")
    )
    # a data set in one folder keeps its degraded images beside the ground truth
    alone = [path for path in found.gt_alone if re.fullmatch(form.gt_pattern, path.stem)]
    return found._replace(gt_alone=alone)


def _match_root(restored: str | Path, data_set: Pairing) -> Pairing:
    """Pair restored images with the ground truth of a data set, which names the pairs."""
    files = images_by_stem(Path(restored))
    gt = {pair.name: pair.gt for pair in data_set.complete()}
    return Pairing(
        [PairFiles(name, path, gt[name]) for name, path in files.items() if name in gt],
        [path for name, path in files.items() if name not in gt],
        [path for name, path in gt.items() if name not in files],
        data_set.expected,
    )


def _is_side_by_side(pair: RestoredImage) -> bool:
    """Return whether the ground truth's file is twice as wide as the restored image."""
    assert pair.gt is not None
    height, width = image_size(pair.restored)
    return image_size(pair.gt) == (height, 2 * width)


def _pairs(
    pairing: Pairing, restored: str | Path, gt: str | Path, allow_missing: bool
) -> list[RestoredImage]:
    sides = ((pairing.lq_alone, restored), (pairing.gt_alone, gt))
    missing = " and ".join(_without_partner(paths, folder) for paths, folder in sides if paths)
    if missing and not (allow_missing and pairing.pairs):
        raise DataError(f"{missing}; expected {pairing.expected} (a layout sets other rules)")
    if missing:
        logger.warning("%s; %d pairs are left", missing, len(pairing.pairs))
    return [RestoredImage(pair.name, pair.lq, pair.gt) for pair in pairing.pairs]


def _without_partner(paths: list[Path], folder: str | Path) -> str:
    names = f"{paths[0].name}, ..." if len(paths) > 1 else paths[0].name
    return f"{len(paths)} without a partner in {folder} ({names})"
