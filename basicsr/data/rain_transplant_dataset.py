"""Data set of photographs without rain that get the rain layers of pairs on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from basicsr.data.base import OtherImageError
from basicsr.data.decode_cache import CacheKind
from basicsr.data.paired_dataset import PairedImageDataset
from basicsr.data.rain_dataset import RainOnPhotographs, ScaleRange, require_range
from basicsr.data.rain_swap_dataset import draw_rain_layer
from basicsr.data.sampling import Split
from basicsr.data.synthetic_dataset import Files
from basicsr.utils.errors import DataError
from basicsr.utils.ranges import Fraction, Gibibytes, Seed
from basicsr.utils.registry import DATASET_REGISTRY


@DATASET_REGISTRY.register
class RainTransplantDataset(RainOnPhotographs):
    """Photographs of a folder with the rain of random pairs of another data set.

    As in RainSwapDataset, the rain is gray and additive: rainy - clean of a pair, cropped,
    mirrored, scaled, added and clipped to [0, 255].

    Args:
        dataroot_gt: folder of the photographs.
        dataroot: root folder of the pairs.
        layout: its layout; see `basicsr.data.layouts`.
        rain_scale: range of the factors by which rain layers are enlarged or reduced.
        split: part of the photographs and of the pairs.

    The other arguments are those of RainOnPhotographs.
    """

    def __init__(
        self,
        dataroot_gt: str,
        dataroot: str,
        layout: str,
        rain_scale: ScaleRange = (0.5, 3.0),
        files: Files = None,
        split: Split = "all",
        seed: Seed = 0,
        color: Literal["gray", "rgb"] = "rgb",
        cache: CacheKind = "none",
        cache_gib: Gibibytes = 4.0,
        scale: ScaleRange = (1.0, 1.0),
        camera: Fraction = 0.0,
    ) -> None:
        super().__init__(dataroot_gt, files, split, seed, color, cache, cache_gib, scale, camera)
        require_range("rain_scale", rain_scale)
        self.donors = PairedImageDataset(
            dataroot, layout, split=split, color=color, cache=cache, cache_gib=cache_gib
        )
        self.rain_scale = rain_scale
        self.description = (
            f"rain of pairs, {self.donors.description}, rain_scale: {rain_scale}, "
            f"scale: {scale}, camera: {camera}"
        )

    def shared_files(self) -> Sequence[Path]:
        return [path for i in range(len(self.donors)) for path in self.donors.files(i)]

    def add_rain(self, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width = clean.shape[:2]
        index = int(rng.integers(len(self.donors)))
        try:
            donor = self.donors.read(index)
        except DataError as error:
            raise OtherImageError(self.donors.names[index], str(error)) from None
        layer = draw_rain_layer(donor, max(height, width), rng, self.rain_scale)
        rainy = np.clip(clean + layer[:height, :width, None], 0, 255)
        return rainy.astype(np.uint8)
