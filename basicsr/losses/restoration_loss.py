"""What all losses have in common."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RestorationLoss(nn.Module):
    """A scalar that tells how far a restored image is from the clean one.

    Both images are N x C x H x W in [0, 1], with any C, H and W unless a loss says otherwise.
    Losses work in single precision even under autocast (double for double inputs): variances and
    small differences do not survive in half of it.
    """

    def __init__(self) -> None:  # for its signature: a loss without options takes no arguments
        super().__init__()

    def forward(self, restored: Tensor, target: Tensor) -> Tensor:
        if restored.shape != target.shape:  # would be broadcast
            raise ValueError(
                f"a loss of images of different shapes: {tuple(restored.shape)} restored, "
                f"{tuple(target.shape)} target"
            )
        dtype = torch.promote_types(restored.dtype, torch.float32)
        with torch.autocast(restored.device.type, enabled=False):
            return self.compare(restored.to(dtype), target.to(dtype))

    def compare(self, restored: Tensor, target: Tensor) -> Tensor:
        """The loss itself, of two floating point tensors of one shape and type."""
        raise NotImplementedError
