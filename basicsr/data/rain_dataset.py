"""Data set of photographs without rain, to which rain is added while training."""

from __future__ import annotations

from typing import Literal

import numpy as np

from basicsr.data.base import ImagePair
from basicsr.data.decode_cache import CacheKind
from basicsr.data.degradations.rain import Preset, render_rain
from basicsr.data.sampling import Split
from basicsr.data.synthetic_dataset import Files, SyntheticDataset
from basicsr.utils.ranges import Gibibytes, Seed
from basicsr.utils.registry import DATASET_REGISTRY


@DATASET_REGISTRY.register
class SyntheticRainDataset(SyntheticDataset):
    """Photographs of a folder with synthetic rain on 8-bit levels.

    `rain` is a preset of `basicsr.data.degradations.rain`; the other arguments are those of
    SyntheticDataset.
    """

    def __init__(
        self,
        dataroot_gt: str,
        files: Files = None,
        rain: Preset = "light",
        split: Split = "all",
        seed: Seed = 0,
        color: Literal["gray", "rgb"] = "rgb",
        cache: CacheKind = "none",
        cache_gib: Gibibytes = 4.0,
    ) -> None:
        super().__init__(dataroot_gt, files, split, seed, color, 8, cache, cache_gib)
        self.rain = rain
        self.description = f"{rain} rain, color: {color}"

    def degrade(self, index: int, pair: ImagePair, rng: np.random.Generator) -> ImagePair:
        assert pair.gt is not None
        return ImagePair(render_rain(pair.gt, self.rain, rng), pair.gt)
