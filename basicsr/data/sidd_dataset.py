"""Data set of the SIDD benchmark's blocks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from basicsr.data.base import ImagePair, RestorationDataset
from basicsr.io.mat_blocks import SiddBlocks, block_names
from basicsr.utils.errors import DataError
from basicsr.utils.files import expanded
from basicsr.utils.registry import DATASET_REGISTRY


@DATASET_REGISTRY.register
class SIDDBlocksDataset(RestorationDataset):
    """Blocks of SIDD in MATLAB files, read one by one.

    Names are IMAGE_BLOCK, both counted from 1.

    Args:
        dataroot: folder with the .mat files.
        part: "validation" for ValidationNoisyBlocksSrgb.mat and ValidationGtBlocksSrgb.mat;
            "benchmark" for BenchmarkNoisyBlocksSrgb.mat, whose ground truth only the server has.

    Raises:
        DataError: a file is missing or not as expected, or the files have different shapes.
    """

    def __init__(
        self, dataroot: str, part: Literal["validation", "benchmark"] = "validation"
    ) -> None:
        folder, prefix = expanded(dataroot), part.capitalize()
        self._lq = SiddBlocks(folder / f"{prefix}NoisyBlocksSrgb.mat")
        self._gt = None
        if part == "validation":
            self._gt = SiddBlocks(folder / "ValidationGtBlocksSrgb.mat")
            if self._gt.shape != self._lq.shape:
                raise DataError(
                    f"{self._lq.path} has blocks of {self._lq.shape} but {self._gt.path} of "
                    f"{self._gt.shape}"
                )
        self.has_gt = self._gt is not None
        positions = block_names(self._lq.shape)
        self.names, self._positions = list(positions), list(positions.values())
        self.description = f"{part} blocks"

    def read(self, index: int) -> ImagePair:
        position = self._positions[index]
        return ImagePair(self._lq[position], None if self._gt is None else self._gt[position])

    def files(self, index: int) -> Sequence[Path]:
        return (self._lq.path,) if self._gt is None else (self._lq.path, self._gt.path)
