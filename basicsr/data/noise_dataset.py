"""Data set of noise-free images, to which Gaussian noise is added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from basicsr.data.base import SAMPLE, ImagePair, generator
from basicsr.data.decode_cache import CacheKind
from basicsr.data.degradations.noise import add_gaussian_noise, add_published_noise
from basicsr.data.sampling import Split
from basicsr.data.synthetic_dataset import Files, SyntheticDataset
from basicsr.io.images import BitDepth, Color
from basicsr.utils.errors import OptionsError
from basicsr.utils.ranges import Gibibytes, Seed
from basicsr.utils.registry import DATASET_REGISTRY

Sigma = Annotated[float, Field(ge=0, le=10_000)]


@DATASET_REGISTRY.register
class GaussianNoiseDataset(SyntheticDataset):
    """Images of a folder with additive white Gaussian noise.

    `lq` is float32 with ground truth levels in [0, 1] plus noise, neither clipped nor rounded. In
    training, level and noise are drawn for every patch. In validation and testing, the noise is
    that of the published benchmarks: the same random numbers for every image (`seed` 0).

    Args:
        sigma: standard deviation in 8-bit levels (0 to 255); a range `[low, high]` is sampled
            uniformly, for blind denoising.
        sigma_choices: levels to choose from, instead of `sigma`.

    The other arguments are those of SyntheticDataset.

    Raises:
        OptionsError: `sigma` and `sigma_choices` are both given or both missing, or the range is
            empty.
    """

    def __init__(
        self,
        dataroot_gt: str,
        sigma: Sigma | tuple[Sigma, Sigma] | None = None,
        sigma_choices: Annotated[tuple[Sigma, ...], Field(min_length=1)] | None = None,
        files: Files = None,
        split: Split = "all",
        seed: Seed = 0,
        color: Color = "rgb",
        bit_depth: BitDepth = 8,
        cache: CacheKind = "none",
        cache_gib: Gibibytes = 4.0,
    ) -> None:
        if (sigma is None) == (sigma_choices is None):
            raise OptionsError("GaussianNoiseDataset takes sigma or sigma_choices")
        if isinstance(sigma, Sequence) and sigma[0] > sigma[1]:
            raise OptionsError(f"sigma: the range {list(sigma)} is empty; swap its ends")
        super().__init__(dataroot_gt, files, split, seed, color, bit_depth, cache, cache_gib)
        self.sigma, self.sigma_choices = sigma, sigma_choices
        self.description = (
            f"Gaussian noise, sigma: {sigma}, sigma_choices: {sigma_choices}, color: {color}, "
            f"bit_depth: {bit_depth}"
        )

    @property
    def lq_dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    def degrade(self, index: int, pair: ImagePair, rng: np.random.Generator) -> ImagePair:
        assert pair.gt is not None
        sigma = self._draw_sigma(rng)
        return ImagePair(add_gaussian_noise(pair.gt, sigma, rng), pair.gt)

    def sample(self, index: int) -> ImagePair:
        gt = self.read(index).lq.copy()
        sigma = self._draw_sigma(generator(SAMPLE, self.seed, index))
        return ImagePair(add_published_noise(gt, sigma, self.seed), gt)

    def _draw_sigma(self, rng: np.random.Generator) -> float:
        if self.sigma_choices is not None:
            return float(rng.choice(self.sigma_choices))
        if isinstance(self.sigma, Sequence):
            return float(rng.uniform(*self.sigma))
        assert self.sigma is not None
        return self.sigma
