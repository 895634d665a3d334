"""Structural similarity as a loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from basicsr.losses.restoration_loss import RestorationLoss
from basicsr.utils.registry import LOSS_REGISTRY

_RADIUS = 5
_C1, _C2 = 0.01**2, 0.03**2


@LOSS_REGISTRY.register
class SSIMLoss(RestorationLoss):
    """-SSIM, as DTPNet and PReNet are trained: -1 for equal images.

    An 11 x 11 gaussian window of sigma 1.5 on each channel, with zeros beyond the borders, and the
    mean over everything (Po-Hsun Su's pytorch-ssim). `measure(..., "dtpnet")` gives the same index.
    """

    def compare(self, restored: Tensor, target: Tensor) -> Tensor:
        # The index needs the two variances only as their sum, so four maps are filtered, not five.
        squares = restored.square() + target.square()
        maps = torch.cat((restored, target, squares, restored * target), dim=1)
        mean_r, mean_t, squares, product = windowed_mean(maps).chunk(4, dim=1)
        mean_product = mean_r * mean_t
        mean_squares = mean_r.square() + mean_t.square()
        luminance = (2 * mean_product + _C1) / (mean_squares + _C1)
        contrast = (2 * (product - mean_product) + _C2) / (squares - mean_squares + _C2)
        return -(luminance * contrast).mean()


def windowed_mean(maps: Tensor) -> Tensor:
    """The gaussian-weighted mean around each pixel, of N x C x H x W, zeros beyond the borders.

    Separable, one axis after the other. On a CPU an axis is a product with a banded matrix, which
    is faster for training patches than a depthwise convolution; elsewhere it is the convolution,
    which is not rounded to TF32 as a matrix product may be.
    """
    axis = _gaussian(maps)
    if maps.device.type == "cpu":
        height, width = maps.shape[-2:]
        return _banded(axis, height) @ maps @ _banded(axis, width)
    channels = maps.shape[1]
    row = axis.repeat(channels, 1, 1, 1)
    column = row.transpose(2, 3).contiguous()
    rows = F.conv2d(maps.contiguous(), row, padding=(0, _RADIUS), groups=channels)
    return F.conv2d(rows, column, padding=(_RADIUS, 0), groups=channels)


def _gaussian(like: Tensor) -> Tensor:
    offsets = torch.arange(-_RADIUS, _RADIUS + 1, device=like.device, dtype=like.dtype)
    weights = (-offsets.square() / (2 * 1.5**2)).exp()
    return weights / weights.sum()


def _banded(weights: Tensor, size: int) -> Tensor:
    """The symmetric size x size matrix with the weights around its diagonal."""
    matrix = weights.new_zeros(size, size + 2 * _RADIUS)
    matrix.as_strided((size, len(weights)), (matrix.stride(0) + 1, 1)).copy_(
        weights.expand(size, -1)
    )
    return matrix[:, _RADIUS : _RADIUS + size]
