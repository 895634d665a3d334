"""Data set of photographs without rain, to which rain is added while training."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from basicsr.data.base import SAMPLE, ImagePair, generator
from basicsr.data.decode_cache import CacheKind
from basicsr.data.degradations.camera import draw_camera, photograph
from basicsr.data.degradations.rain import Preset, render_rain
from basicsr.data.sampling import Split, draw_patch
from basicsr.data.synthetic_dataset import Files, SyntheticDataset
from basicsr.utils.errors import OptionsError
from basicsr.utils.ranges import Fraction, Gibibytes, Seed
from basicsr.utils.registry import DATASET_REGISTRY

ScaleRange = tuple[Annotated[float, Field(gt=0, le=16)], Annotated[float, Field(gt=0, le=16)]]


def require_range(option: str, scales: ScaleRange) -> None:
    """Raise OptionsError unless `scales` are the smallest and the largest factor."""
    if scales[0] > scales[1]:
        raise OptionsError(f"{option}: {scales[0]} to {scales[1]} is no range; swap the numbers")


class RainOnPhotographs(SyntheticDataset):
    """Photographs of a folder, on 8-bit levels, with the rain that `add_rain` of a subclass adds.

    Args:
        scale: range of the factors by which training patches are enlarged or reduced before they
            get rain, so that they look like patches of photographs of other resolutions.
        camera: share of the images that pass through a camera after the rain, the ground truth
            with the same noise and compression; see `basicsr.data.degradations.camera`.

    The other arguments are those of SyntheticDataset.
    """

    def __init__(
        self,
        dataroot_gt: str,
        files: Files,
        split: Split,
        seed: Seed,
        color: Literal["gray", "rgb"],
        cache: CacheKind,
        cache_gib: float,
        scale: ScaleRange,
        camera: float,
    ) -> None:
        super().__init__(dataroot_gt, files, split, seed, color, 8, cache, cache_gib)
        require_range("scale", scale)
        self.scale, self.camera = scale, camera

    @abstractmethod
    def add_rain(self, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the H x W x C uint8 image with rain."""

    def degrade(self, index: int, pair: ImagePair, rng: np.random.Generator) -> ImagePair:
        assert pair.gt is not None
        gt = pair.gt
        if self.scale != (1, 1):
            gt = self._scaled(index, gt, np.exp(rng.uniform(*np.log(self.scale))), rng)
        return self._photographed(gt, rng)

    def sample(self, index: int) -> ImagePair:
        gt = self._gt(self.paths[index]).copy()
        return self._photographed(gt, generator(SAMPLE, self.seed, index))

    def _photographed(self, clean: np.ndarray, rng: np.random.Generator) -> ImagePair:
        rainy = self.add_rain(clean, rng)
        if self.camera and rng.random() < self.camera:
            rainy, clean = photograph((rainy, clean), draw_camera(rng), rng)
        return ImagePair(rainy, clean)

    def _scaled(
        self, index: int, patch: np.ndarray, scale: float, rng: np.random.Generator
    ) -> np.ndarray:
        """Enlarge a part of the patch, or reduce a larger patch of its image."""
        import cv2  # here, so that importing the library does not load OpenCV

        size, image = len(patch), self.read(index)
        largest = max(min(image.lq.shape[:2]), size)
        source = ImagePair(patch, None) if scale > 1 else image
        part = min(max(round(size / scale), 1), largest)
        crop, _ = draw_patch(source, part, rng, use_hflip=scale < 1, use_rot=False)
        method = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
        return cv2.resize(crop, (size, size), interpolation=method).reshape(patch.shape)


@DATASET_REGISTRY.register
class SyntheticRainDataset(RainOnPhotographs):
    """Photographs of a folder with synthetic rain.

    `rain` is a preset of `basicsr.data.degradations.rain`; the other arguments are those of
    RainOnPhotographs.
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
        scale: ScaleRange = (1.0, 1.0),
        camera: Fraction = 0.0,
    ) -> None:
        super().__init__(dataroot_gt, files, split, seed, color, cache, cache_gib, scale, camera)
        self.rain = rain
        self.description = f"{rain} rain, color: {color}"
        if scale != (1, 1) or camera:
            self.description += f", scale: {scale}, camera: {camera}"

    def add_rain(self, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return render_rain(clean, self.rain, rng)
