"""Layouts of the defocus-deblurring set DPDD."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

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
        labels: file of the root with the positions, from 1, of the shots to keep, in natural order
            of their names.
    """

    lq_folder: str
    gt_folder: str
    right_folder: str | None = None
    labels: str | None = None

    def is_present(self, root: Path) -> bool:
        labelled = self.labels is None or (root / self.labels).is_file()
        return labelled and all(folder.is_dir() for folder in self._folders(root))

    def match(self, root: Path) -> Pairing:
        lq_folder, *others = self._folders(root)
        lq = images_by_stem(lq_folder)
        gt, *right = (_partners_in(folder, list(lq)) for folder in others)
        pairs = [PairFiles(shot, path, gt[shot]) for shot, path in lq.items()]
        if right:
            pairs = [pair._replace(lq_right=right[0][pair.name]) for pair in pairs]
        if self.labels:
            pairs = [pairs[number - 1] for number in _positions(root / self.labels, len(pairs))]
        return Pairing(pairs, [], [], str(self))

    def _folders(self, root: Path) -> list[Path]:
        part = root.resolve().name.removesuffix("_c")
        names = (self.lq_folder, self.gt_folder, self.right_folder)
        return [root / name.format(part=part) for name in names if name]

    def __str__(self) -> str:
        right = f", {self.right_folder}/" if self.right_folder else ""
        labels = f" with {self.labels}" if self.labels else ""
        return f"{self.lq_folder}/{right} and {self.gt_folder}/{labels}"


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


def _positions(file: Path, shots: int) -> list[int]:
    """Read the positions of a label file. Raises DataError unless they are among `shots`."""
    try:
        numbers = np.load(file, allow_pickle=False).ravel().tolist()
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file}: not a readable NumPy file: {error}") from None
    possible = range(1, shots + 1)
    if not numbers or len(set(numbers)) < len(numbers) or not set(numbers) <= set(possible):
        raise DataError(
            f"{file}: expected different positions from 1 to {shots}, one for each shot of this "
            "part; take the whole test set, and the file that comes with it"
        )
    return [int(number) for number in numbers]


def _forms(labels: str | None = None) -> tuple[Layout, Layout]:
    """Return the forms of single and of dual-pixel images.

    They are as repacked by Restormer's authors, as cut by scripts/prepare.py, and as distributed
    (root: test_c).
    """
    single = (
        Shots("inputC", "target", labels=labels),
        Shots("inputC_crops", "target_crops", labels=labels),
        Shots("source", "target", labels=labels),
    )
    dual = (
        Shots("inputL", "target", "inputR", labels),
        Shots("inputL_crops", "target_crops", "inputR_crops", labels),
        Shots("../{part}_l/source", "target", "../{part}_r/source", labels),
    )
    return single, dual


LAYOUTS: dict[str, Layout] = {}
LAYOUTS["DPDD"], LAYOUTS["DPDD_dual"] = _forms()
# parts of the test set; the lists come with the repacked copy
for _part in ("indoor", "outdoor"):
    LAYOUTS[f"DPDD_{_part}"], LAYOUTS[f"DPDD_dual_{_part}"] = _forms(f"{_part}_labels.npy")
