"""Layouts of the defocus-deblurring set DPDD."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from basicsr.data.layouts.base import Layout, PairFiles, Pairing
from basicsr.io.images import images_by_stem
from basicsr.utils.errors import DataError


class Shots(NamedTuple):
    """Shots of DPDD, whose sharp image was taken just before or after the blurred one.

    As distributed, source and target of a shot therefore have neighbouring numbers, not equal ones.

    In the names of folders, `{part}` stands for the root's name without `_c`.

    Args:
        lq_folder: folder of the blurred images, or of the left views.
        gt_folder: folder of the sharp images.
        right_folder: folder of the right views.
    """

    lq_folder: str
    gt_folder: str
    right_folder: str | None = None

    def is_present(self, root: Path) -> bool:
        return all(folder.is_dir() for folder in self._folders(root))

    def match(self, root: Path) -> Pairing:
        lq_folder, *others = self._folders(root)
        lq = images_by_stem(lq_folder)
        gt, *right = (_partners_in(folder, list(lq)) for folder in others)
        pairs = [PairFiles(shot, path, gt[shot]) for shot, path in lq.items()]
        if right:
            pairs = [pair._replace(lq_right=right[0][pair.name]) for pair in pairs]
        return Pairing(pairs, [], [], str(self))

    def _folders(self, root: Path) -> list[Path]:
        part = root.resolve().name.removesuffix("_c")
        names = (self.lq_folder, self.gt_folder, self.right_folder)
        return [root / name.format(part=part) for name in names if name]

    def __str__(self) -> str:
        right = f", {self.right_folder}/" if self.right_folder else ""
        return f"{self.lq_folder}/{right} and {self.gt_folder}/"


def partners(shots: Sequence[str], others: Sequence[str], folder: Path) -> dict[str, str]:
    """Map shots to the images of another folder: by equal names, otherwise by their order.

    Args:
        shots: names in natural order.
        others: names in the other folder, in natural order.
        folder: the other folder, for errors.

    Raises:
        DataError: the counts differ, or numbers at the same place differ by more than two.
    """
    if set(shots) == set(others):
        return {shot: shot for shot in shots}
    if len(shots) != len(others):
        raise DataError(f"{folder}: {len(others)} images for {len(shots)} shots")
    for shot, other in zip(shots, others, strict=True):
        numbers = [re.findall(r"\d+", name) for name in (shot, other)]
        if not all(numbers) or abs(int(numbers[0][-1]) - int(numbers[1][-1])) > 2:
            raise DataError(
                f"{folder}: {other} is at the place of the partner of {shot}; an image is missing "
                "or does not belong here"
            )
    return dict(zip(shots, others, strict=True))


def _partners_in(folder: Path, shots: Sequence[str]) -> dict[str, Path]:
    files = images_by_stem(folder)
    return {shot: files[other] for shot, other in partners(shots, list(files), folder).items()}


# as repacked by Restormer's authors, cut by scripts/prepare.py, distributed (root: test_c)
LAYOUTS: Mapping[str, Layout] = {
    "DPDD": (
        Shots("inputC", "target"),
        Shots("inputC_crops", "target_crops"),
        Shots("source", "target"),
    ),
    "DPDD_dual": (
        Shots("inputL", "target", "inputR"),
        Shots("inputL_crops", "target_crops", "inputR_crops"),
        Shots("../{part}_l/source", "target", "../{part}_r/source"),
    ),
}
