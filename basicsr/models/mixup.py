"""Mixup of training patches (Zhang et al., ICLR 2018), as denoising networks are trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from basicsr.data.base import MIXUP, generator


@dataclass(frozen=True)
class Mixup:
    """Mixup: each pair of patches becomes `w * pair + (1 - w) * another pair` of its micro-batch.

    Degraded patches and ground truth are mixed alike. What is drawn depends on `seed`, the
    iteration and the number of the micro-batch among those of all processes, and on nothing else.
    The defaults are Restormer's.

    Attributes:
        beta: w is drawn from Beta(beta, beta), once for the micro-batch.
        probability: share of the micro-batches that are mixed.
        per_sample: draw a `w` for every pair instead (MPRNet).
        start_iter: number of iterations without mixup at the start of training.
        seed: seed of the random numbers.
    """

    beta: float = 1.2
    probability: float = 0.5
    per_sample: bool = False
    start_iter: int = 0
    seed: int = 0

    def __call__(
        self, lq: Tensor, gt: Tensor, iteration: int, part: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Return the mixed patches, or the same ones if they are not to be mixed.

        Args:
            lq: degraded patches, N x C x H x W of floats.
            gt: their ground truth.
            iteration: number of the step, from 0.
            part: number of the micro-batch in the global batch.
        """
        samples = len(lq)
        rng = generator(MIXUP, self.seed, iteration, part)
        if samples == 1 or iteration < self.start_iter or rng.random() >= self.probability:
            return lq, gt
        order = torch.from_numpy(rng.permutation(samples))
        weights = rng.beta(self.beta, self.beta, samples if self.per_sample else 1)
        shares = torch.from_numpy(weights.astype(np.float32)).view(-1, 1, 1, 1)
        order, shares = (each.to(lq.device, non_blocking=True) for each in (order, shares))
        mixed_lq, mixed_gt = (images[order].lerp(images, shares) for images in (lq, gt))
        return mixed_lq, mixed_gt
