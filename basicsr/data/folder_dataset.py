"""Rainy photographs without clean counterparts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from basicsr.data.base import ImagePair, RestorationDataset
from basicsr.io.images import images_by_stem, read_image
from basicsr.utils.registry import DATASET_REGISTRY


@DATASET_REGISTRY.register
class ImageFolderDataset(RestorationDataset):
    """The images of a folder, subfolders included: real rain, to be restored and looked at."""

    has_gt = False

    def __init__(self, dataroot_lq: str) -> None:
        images = images_by_stem(Path(dataroot_lq))
        self.names, self.paths = list(images), list(images.values())

    def read(self, index: int) -> ImagePair:
        return ImagePair(read_image(self.paths[index]), None)

    def files(self, index: int) -> Sequence[Path]:
        return (self.paths[index],)
