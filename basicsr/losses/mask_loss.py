"""The loss of a predicted distortion mask (SPAIR)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from basicsr.utils.registry import LOSS_REGISTRY


@LOSS_REGISTRY.register
class MaskLoss(nn.Module):
    """Binary cross-entropy of a mask against |degraded - clean| > threshold in any channel.

    `masked` is SPAIR's first stage, N x (C + 1) x H x W: degraded images with the mask as their
    alpha channel, both in [0, 1], as are the clean images `target`. The description that SPAIR is
    rebuilt from names no threshold and no loss; both are this project's choice.
    """

    def __init__(self, threshold: float = 0.05) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, masked: Tensor, target: Tensor) -> Tensor:
        degraded, mask = masked[:, :-1], masked[:, -1:]
        if degraded.shape != target.shape:  # would be broadcast
            raise ValueError(
                f"MaskLoss wants {target.shape[1]} channels and a mask, as SPAIR's stage 0 has, "
                f"for a target of {tuple(target.shape)}, not {tuple(masked.shape)}"
            )
        dtype = torch.promote_types(mask.dtype, torch.float32)
        with torch.autocast(masked.device.type, enabled=False):
            difference = (degraded.to(dtype) - target.to(dtype)).abs().amax(1, keepdim=True)
            return F.binary_cross_entropy(mask.to(dtype), (difference > self.threshold).to(dtype))
