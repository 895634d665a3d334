"""Data set of sharp photographs, which a shaken camera blurs while training."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from basicsr.data.base import ImagePair
from basicsr.data.decode_cache import CacheKind
from basicsr.data.degradations.motion_blur import draw_camera_shake, render_motion_blur
from basicsr.data.sampling import Split
from basicsr.data.synthetic_dataset import Files, SyntheticDataset
from basicsr.io.images import BitDepth
from basicsr.utils.ranges import Gibibytes, Seed
from basicsr.utils.registry import DATASET_REGISTRY


@DATASET_REGISTRY.register
class SyntheticBlurDataset(SyntheticDataset):
    """Photographs of a folder with motion blur of random camera shakes.

    Args:
        max_length: length of the longest trajectory in pixels.
        max_rotation: largest rotation about the optical axis in degrees; with 0 the blur is the
            same everywhere in an image, and takes less than half of the time.

    The other arguments are those of SyntheticDataset.
    """

    def __init__(
        self,
        dataroot_gt: str,
        max_length: Annotated[float, Field(ge=0, le=512)] = 32.0,
        max_rotation: Annotated[float, Field(ge=0, le=180)] = 0.0,
        files: Files = None,
        split: Split = "all",
        seed: Seed = 0,
        color: Literal["gray", "rgb"] = "rgb",
        bit_depth: BitDepth = 8,
        cache: CacheKind = "none",
        cache_gib: Gibibytes = 4.0,
    ) -> None:
        super().__init__(dataroot_gt, files, split, seed, color, bit_depth, cache, cache_gib)
        self.max_length, self.max_rotation = max_length, max_rotation
        self.description = (
            f"motion blur up to {max_length} pixels and {max_rotation} degrees, color: {color}, "
            f"bit_depth: {bit_depth}"
        )

    def degrade(self, index: int, pair: ImagePair, rng: np.random.Generator) -> ImagePair:
        assert pair.gt is not None
        shake = draw_camera_shake(rng, self.max_length, self.max_rotation)
        return ImagePair(render_motion_blur(pair.gt, shake, rng), pair.gt)
