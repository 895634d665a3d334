"""Data set of the DND benchmark's regions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from basicsr.data.base import ImagePair, RestorationDataset
from basicsr.io.mat_blocks import DndImages
from basicsr.utils.files import expanded
from basicsr.utils.registry import DATASET_REGISTRY


@DATASET_REGISTRY.register
class DNDDataset(RestorationDataset):
    """Regions of DND's sRGB images, float32 and not quantised; the ground truth is not public.

    Names are IMAGE_BOX, both counted from 1, as in the benchmark. Needs the extra `hdf5`.

    Args:
        dataroot: folder with info.mat and images_srgb/.

    Raises:
        DataError: a file is missing or not as expected.
    """

    has_gt = False

    def __init__(self, dataroot: str) -> None:
        self._images = DndImages(str(expanded(dataroot)))
        self._positions = [
            (image, box)
            for image, boxes in enumerate(self._images.boxes)
            for box in range(len(boxes))
        ]
        self.names = [f"{image + 1:04d}_{box + 1:02d}" for image, box in self._positions]

    @property
    def lq_dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    def read(self, index: int) -> ImagePair:
        return ImagePair(self._images.crop(*self._positions[index]), None)

    def files(self, index: int) -> Sequence[Path]:
        image, _ = self._positions[index]
        return (self._images.folder / "info.mat", self._images.path(image))
