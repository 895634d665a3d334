"""Layouts of the motion-deblurring sets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from basicsr.data.layouts.base import Folders, Layout, Nested, PairFiles, Pairing
from basicsr.utils.errors import DataError

_REPACKED = Folders("input", "target")  # as MPRNet and Restormer repacked the sets
_CROPS = Folders("input_crops", "target_crops")  # as scripts/prepare.py writes them
# names as in the repacked set: restored images of both forms can be compared
_GOPRO = Nested(
    r"([^/]+)/blur/([^/]+)",
    r"([^/]+)/sharp/([^/]+)",
    r"\1-\2",
    "SEQUENCE/blur/000001.png with SEQUENCE/sharp/000001.png",
)


class Listed(NamedTuple):
    """Pairs of RealBlur, as a list of the authors names them: `GT_FILE BLURRED_FILE` in each line.

    The list lies in the root, which its paths are relative to. Names are SCENE-NUMBER, as in the
    repacked set.
    """

    file: str

    def is_present(self, root: Path) -> bool:
        return (root / self.file).is_file()

    def match(self, root: Path) -> Pairing:
        pairs = []
        for number, line in enumerate((root / self.file).read_text().splitlines(), 1):
            if not line.strip():
                continue
            found = re.fullmatch(r"(\S+) (\S*?([^/\s]+)/blur/blur_(\d+)\.\w+)", line.strip())
            if not found:
                raise DataError(
                    f"{root / self.file}: line {number} is not of the form .../scene001/gt/"
                    "gt_1.png .../scene001/blur/blur_1.png"
                )
            gt, lq, scene, image = found.groups()
            pairs.append(PairFiles(f"{scene}-{image}", root / lq, root / gt))
        for pair in pairs:
            for path in (pair.lq, pair.gt):
                if not path.is_file():
                    raise DataError(f"{path}: no such file, but {root / self.file} names it")
        return Pairing(pairs, [], [], str(self))

    def __str__(self) -> str:
        return f"{self.file} and the images that it names"


LAYOUTS: Mapping[str, Layout] = {
    "GoPro": (_REPACKED, _CROPS, _GOPRO),
    "HIDE": (_REPACKED,),
    "RealBlur_J": (_REPACKED, Listed("RealBlur_J_test_list.txt")),
    "RealBlur_R": (_REPACKED, Listed("RealBlur_R_test_list.txt")),
    "RealBlur_J_train": (_REPACKED, _CROPS, Listed("RealBlur_J_train_list.txt")),
    "RealBlur_R_train": (_REPACKED, _CROPS, Listed("RealBlur_R_train_list.txt")),
}
