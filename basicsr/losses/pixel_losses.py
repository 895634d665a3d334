"""Losses that compare pixel by pixel."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from basicsr.losses.restoration_loss import RestorationLoss
from basicsr.utils.registry import LOSS_REGISTRY


@LOSS_REGISTRY.register
class L1Loss(RestorationLoss):
    """Mean absolute difference (Restormer, DID-MDN)."""

    def compare(self, restored: Tensor, target: Tensor) -> Tensor:
        return F.l1_loss(restored, target)


@LOSS_REGISTRY.register
class MSELoss(RestorationLoss):
    """Mean squared difference (DTPNet's coarse image)."""

    def compare(self, restored: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(restored, target)


@LOSS_REGISTRY.register
class CharbonnierLoss(RestorationLoss):
    """Mean of sqrt(difference^2 + eps^2), an L1 loss that is smooth at zero (MPRNet).

    It is `eps`, not 0, for equal images.
    """

    def __init__(self, eps: float = 1e-3) -> None:
        super().__init__()
        self.eps = eps

    def compare(self, restored: Tensor, target: Tensor) -> Tensor:
        return charbonnier(restored - target, self.eps)


def charbonnier(difference: Tensor, eps: float) -> Tensor:
    """Mean of sqrt(difference^2 + eps^2)."""
    return (difference.square() + eps**2).sqrt().mean()
