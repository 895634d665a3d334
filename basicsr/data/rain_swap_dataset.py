"""Data set of rainy and clean images on disk, whose rain is exchanged while training."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from basicsr.data.base import ImagePair, OtherImageError
from basicsr.data.decode_cache import CacheKind
from basicsr.data.paired_dataset import PairedImageDataset
from basicsr.data.pairing import PairingRule
from basicsr.data.sampling import Split, draw_patch
from basicsr.utils.errors import DataError
from basicsr.utils.ranges import Gibibytes
from basicsr.utils.registry import DATASET_REGISTRY


@DATASET_REGISTRY.register
class RainSwapDataset(PairedImageDataset):
    """Pairs on 8-bit levels; training patches get the rain of random pairs.

    It is for gray, additive rain as in RainTrainL. The rain layer of a pair, rainy - clean, is
    cropped, mirrored, scaled, added to a clean patch, and clipped to [0, 255]. It is neither
    transposed nor turned upside down, as clean patches may be: rain falls, and its streaks differ
    at both ends. Whole images (`sample`) keep their own rain.

    Args:
        rain_swap: share of the patches that get the rain of a random pair.
        rain_scale: largest factor by which a rain layer is enlarged or reduced.

    The other arguments are those of PairedImageDataset.
    """

    def __init__(
        self,
        dataroot: str | None = None,
        layout: str | None = None,
        dataroot_lq: str | None = None,
        dataroot_gt: str | None = None,
        pairing: PairingRule | None = None,
        meta_info_file: str | None = None,
        rain_swap: Annotated[float, Field(ge=0, le=1)] = 1.0,
        rain_scale: Annotated[float, Field(ge=1, le=16)] = 1.0,
        split: Split = "all",
        color: Literal["gray", "rgb"] = "rgb",
        cache: CacheKind = "none",
        cache_gib: Gibibytes = 4.0,
    ) -> None:
        super().__init__(
            dataroot,
            layout,
            dataroot_lq,
            dataroot_gt,
            pairing,
            meta_info_file,
            split,
            color,
            cache=cache,
            cache_gib=cache_gib,
        )
        self.rain_swap, self.rain_scale = rain_swap, rain_scale
        self.description += f", rain_swap: {rain_swap}, rain_scale: {rain_scale}"

    def degrade(self, index: int, pair: ImagePair, rng: np.random.Generator) -> ImagePair:
        if not self.rain_swap or rng.random() >= self.rain_swap:
            return pair
        assert pair.gt is not None
        donor = self._donor(int(rng.integers(len(self))))
        scales = 1 / self.rain_scale, self.rain_scale
        rain = draw_rain_layer(donor, pair.gt.shape[0], rng, scales)
        rainy = np.clip(pair.gt + rain[..., None], 0, 255)
        return ImagePair(rainy.astype(np.uint8), pair.gt)

    def _donor(self, index: int) -> ImagePair:
        try:
            return self.read(index)
        except DataError as error:
            raise OtherImageError(self.names[index], str(error)) from None

    def sample(self, index: int) -> ImagePair:
        lq, gt = self.read(index)
        assert gt is not None
        return ImagePair(lq.copy(), gt.copy())


def draw_rain_layer(
    pair: ImagePair, size: int, rng: np.random.Generator, scales: tuple[float, float] = (1, 1)
) -> np.ndarray:
    """Return a random `size` x `size` crop of the pair's rain layer, as gray int16 levels.

    It is mirrored at random, and scaled by a factor in the range `scales`.
    """
    import cv2  # here, so that importing the library does not load OpenCV

    scale = np.exp(rng.uniform(*np.log(scales)))
    part = max(round(size / scale), 1)
    rainy, clean = draw_patch(pair, part, rng, use_hflip=True, use_rot=False)
    assert clean is not None
    # A channel that was clipped at 255 shows less rain than was added, so take the largest.
    rain = (rainy.astype(np.int16) - clean).max(axis=2)
    if len(rain) != size:
        method = cv2.INTER_AREA if len(rain) > size else cv2.INTER_LINEAR
        rain = cv2.resize(rain, (size, size), interpolation=method)
    return rain
