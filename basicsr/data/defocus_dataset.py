"""Data set of sharp photographs, which are put out of focus while training."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from basicsr.data.base import ImagePair
from basicsr.data.decode_cache import CacheKind
from basicsr.data.degradations.defocus_blur import draw_defocus_map, render_defocus
from basicsr.data.sampling import Split
from basicsr.data.synthetic_dataset import Files, SyntheticDataset
from basicsr.io.images import BitDepth
from basicsr.utils.ranges import Gibibytes, Seed
from basicsr.utils.registry import DATASET_REGISTRY


@DATASET_REGISTRY.register
class SyntheticDefocusDataset(SyntheticDataset):
    """Photographs of a folder with defocus blur that follows a random smooth depth map.

    Args:
        views: "single" for the image of the whole aperture; "dual" for the left and the right view
            of a dual-pixel sensor, whose channels are concatenated.
        max_radius: radius of the largest blur disc in pixels.
        depth_scale: distance in pixels over which depth changes.
        bit_depth: 8 or 16; with 16 the views of an 8-bit photograph keep 16-bit levels.

    The other arguments are those of SyntheticDataset.
    """

    def __init__(
        self,
        dataroot_gt: str,
        views: Literal["single", "dual"] = "single",
        max_radius: Annotated[float, Field(ge=0, le=256)] = 8.0,
        depth_scale: Annotated[float, Field(ge=1, le=1e6)] = 160.0,
        files: Files = None,
        split: Split = "all",
        seed: Seed = 0,
        color: Literal["gray", "rgb"] = "rgb",
        bit_depth: BitDepth = 8,
        cache: CacheKind = "none",
        cache_gib: Gibibytes = 4.0,
    ) -> None:
        super().__init__(dataroot_gt, files, split, seed, color, bit_depth, cache, cache_gib)
        self.views, self.max_radius, self.depth_scale = views, max_radius, depth_scale
        if views == "dual":
            self.lq_channels = 2 * self.gt_channels
        self.description = (
            f"{views} view, defocus up to {max_radius} pixels, depth scale {depth_scale}, "
            f"color: {color}, bit_depth: {bit_depth}"
        )

    def degrade(self, index: int, pair: ImagePair, rng: np.random.Generator) -> ImagePair:
        assert pair.gt is not None
        height, width = pair.gt.shape[:2]
        radius = draw_defocus_map(height, width, self.max_radius, self.depth_scale, rng)
        centre, left, right = render_defocus(pair.gt, radius)
        lq = centre if self.views == "single" else np.concatenate([left, right], axis=2)
        return ImagePair(lq, pair.gt)
