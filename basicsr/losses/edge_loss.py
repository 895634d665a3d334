"""A loss on edges."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from basicsr.losses.pixel_losses import charbonnier
from basicsr.losses.restoration_loss import RestorationLoss
from basicsr.utils.registry import LOSS_REGISTRY


@LOSS_REGISTRY.register
class EdgeLoss(RestorationLoss):
    """Charbonnier loss of the finest level of the images' Laplacian pyramids (MPRNet, losses.py).

    The level is an image less what is left of it after halving and doubling with Burt and Adelson's
    5 x 5 filter. It is linear, so that of the difference is taken. `eps`, not 0, for equal images.
    """

    def __init__(self, eps: float = 1e-3) -> None:
        super().__init__()
        self.eps = eps

    def compare(self, restored: Tensor, target: Tensor) -> Tensor:
        return charbonnier(_laplacian(restored - target), self.eps)


def _laplacian(image: Tensor) -> Tensor:
    coarse = _smooth(image)[..., ::2, ::2]
    doubled = torch.zeros_like(image)
    doubled[..., ::2, ::2] = 4 * coarse  # three of four pixels are zeros
    return image - _smooth(doubled)


def _smooth(image: Tensor) -> Tensor:
    channels = image.shape[1]
    axis = image.new_tensor([0.05, 0.25, 0.4, 0.25, 0.05])
    window = torch.outer(axis, axis).repeat(channels, 1, 1, 1)
    padded = F.pad(image, (2, 2, 2, 2), mode="replicate").contiguous()
    return F.conv2d(padded, window, groups=channels)
