"""Restored images on disk, and the clean ones that belong to them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from basicsr.data.layouts import LAYOUTS, Folders, Pairing, Side, SideBySide, match_folders
from basicsr.io.images import image_size, read_image
from basicsr.utils.errors import DataError
from basicsr.utils.registry import suggest


class RestoredPair(NamedTuple):
    """The files of a restored and a clean image; that one may share its file with the rainy."""

    name: str
    restored: Path
    clean: Path
    lq_side: Side | None = None

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Restored and clean image, H x W x 3 uint8 RGB. Raises DataError for unreadable files."""
        restored, clean = read_image(self.restored), read_image(self.clean)
        half = clean.shape[1] // 2
        if self.lq_side is not None:
            clean = clean[:, half:] if self.lq_side == "left" else clean[:, :half]
        return restored, clean


def match_restored(
    restored: str | Path, clean: str | Path, layout: str | None = None
) -> list[RestoredPair]:
    """Pair the restored images of a folder, named as the rainy ones were, with the clean ones.

    Without a layout equal names belong together, suffixes apart; with one, its rules for names do.
    Raises DataError where the layout is unknown or files are left over.
    """
    if layout is None:
        return _pairs(match_folders(restored, clean), restored, clean)
    if layout not in LAYOUTS:
        raise DataError(
            f"no layout is called '{layout}'{suggest(layout, LAYOUTS)}; known: {', '.join(LAYOUTS)}"
        )
    forms = LAYOUTS[layout]
    matched = [_match(form, restored, clean) for form in forms if isinstance(form, Folders)]
    best = min(matched, key=lambda each: len(each.lq_alone) + len(each.gt_alone))
    pairs = _pairs(best, restored, clean)
    side = next((form.lq_side for form in forms if isinstance(form, SideBySide)), None)
    return [pair._replace(lq_side=side) for pair in pairs] if _doubled(pairs, side) else pairs


def _match(form: Folders, restored: str | Path, clean: str | Path) -> Pairing:
    """Match by a layout's rules in other folders than its own."""
    found = form._replace(lq_folder=str(restored), gt_folder=str(clean)).match(Path("."))
    # a flat data set keeps its rainy images beside the clean ones
    alone = [path for path in found.gt_alone if re.fullmatch(form.gt_pattern, path.stem)]
    return found._replace(gt_alone=alone)


def _doubled(pairs: list[RestoredPair], side: Side | None) -> bool:
    """Whether the clean images are halves of files twice as wide as the restored ones."""
    if side is None:
        return False
    height, width = image_size(pairs[0].restored)
    return image_size(pairs[0].clean) == (height, 2 * width)


def _pairs(pairing: Pairing, restored: str | Path, clean: str | Path) -> list[RestoredPair]:
    lonely = [
        f"{len(paths)} without a partner in {folder} ({paths[0].name}{', ...' * (len(paths) > 1)})"
        for paths, folder in ((pairing.lq_alone, restored), (pairing.gt_alone, clean))
        if paths
    ]
    if lonely:
        raise DataError(
            f"{' and '.join(lonely)}; expected {pairing.expected} (a layout sets other rules)"
        )
    return [RestoredPair(pair.name, pair.lq, pair.gt) for pair in pairing.pairs]
