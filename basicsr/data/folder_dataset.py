"""Data set of degraded images without ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from basicsr.data.base import ImagePair, RestorationDataset
from basicsr.data.decode_cache import DecodeCache
from basicsr.data.stored_images import StoredImages, warn_of_reduced_depth
from basicsr.io.images import BitDepth, Color, images_by_stem
from basicsr.utils.files import expanded
from basicsr.utils.registry import DATASET_REGISTRY


@DATASET_REGISTRY.register
class ImageFolderDataset(RestorationDataset):
    """Images of a folder and its subfolders, to be restored and looked at.

    `color` and `bit_depth` are those of PairedImageDataset.
    """

    has_gt = False

    def __init__(self, dataroot_lq: str, color: Color = "rgb", bit_depth: BitDepth = 8) -> None:
        images = images_by_stem(expanded(dataroot_lq))
        self.names, self.paths = list(images), list(images.values())
        self.description = f"color: {color}, bit_depth: {bit_depth}"
        self._lq = StoredImages(self.paths, DecodeCache((), "none", 0, color, bit_depth))
        warn_of_reduced_depth(self._lq)
        self.bit_depth, self.lq_channels = self._lq.bit_depth, self._lq.channels

    def read(self, index: int) -> ImagePair:
        return ImagePair(self._lq(self.paths[index]), None)

    def files(self, index: int) -> Sequence[Path]:
        return (self.paths[index],)
