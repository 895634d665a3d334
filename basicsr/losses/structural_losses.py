"""Losses that compare structure: local statistics, edges and spectra. Any number of channels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from basicsr.losses.base import RestorationLoss
from basicsr.losses.pixel_losses import charbonnier
from basicsr.utils.ranges import Epsilon
from basicsr.utils.registry import LOSS_REGISTRY

_RADIUS = 5
_C1, _C2 = 0.01**2, 0.03**2


@LOSS_REGISTRY.register
class SSIMLoss(RestorationLoss):
    """-SSIM, as DTPNet and PReNet are trained: -1 for equal images.

    An 11 x 11 Gaussian window of sigma 1.5 on each channel, with zeros beyond the borders, and the
    mean over pixels and channels (Po-Hsun Su's pytorch-ssim). The `dtpnet` protocol measures the
    same index.
    """

    def compare(self, restored: Tensor, target: Tensor) -> Tensor:
        # SSIM uses the two variances only as their sum: filter four maps instead of five.
        squares = restored.square() + target.square()
        maps = torch.cat((restored, target, squares, restored * target), dim=1)
        mean_r, mean_t, squares, product = windowed_mean(maps).chunk(4, dim=1)
        mean_product = mean_r * mean_t
        mean_squares = mean_r.square() + mean_t.square()
        luminance = (2 * mean_product + _C1) / (mean_squares + _C1)
        contrast = (2 * (product - mean_product) + _C2) / (squares - mean_squares + _C2)
        return -(luminance * contrast).mean()


@LOSS_REGISTRY.register
class EdgeLoss(RestorationLoss):
    """Charbonnier loss of the finest level of the images' Laplacian pyramids (MPRNet, losses.py).

    The finest level is the image minus its low frequencies: the image is smoothed with Burt and
    Adelson's 5 x 5 filter, subsampled by 2, upsampled and smoothed again. The operation is linear,
    hence applied to the difference. The value for equal images is `eps`.
    """

    def __init__(self, eps: Epsilon = 1e-3) -> None:
        super().__init__()
        self.eps = eps

    def compare(self, restored: Tensor, target: Tensor) -> Tensor:
        return charbonnier(_laplacian(restored - target), self.eps)


@LOSS_REGISTRY.register
class FFTLoss(RestorationLoss):
    """Mean absolute difference of the real and imaginary parts of the images' 2-D spectra.

    The transform is not normalised, as in MIMO-UNet (Cho et al. 2021, eq. 5), which weights this
    loss by 0.1. The transform is linear, hence applied to the difference.
    """

    def compare(self, restored: Tensor, target: Tensor) -> Tensor:
        spectrum = torch.fft.fft2(restored - target)
        return torch.view_as_real(spectrum).abs().mean()


def windowed_mean(maps: Tensor) -> Tensor:
    """Return the Gaussian-weighted mean around each pixel of N x C x H x W, zero-padded.

    Separable, one axis after the other. On a CPU each axis is a product with a banded matrix, which
    is faster for training patches than a depthwise convolution. On a GPU it is the convolution,
    because a matrix product may be rounded to TF32.
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
    """Return the symmetric size x size matrix with `weights` around its diagonal."""
    matrix = weights.new_zeros(size, size + 2 * _RADIUS)
    matrix.as_strided((size, len(weights)), (matrix.stride(0) + 1, 1)).copy_(
        weights.expand(size, -1)
    )
    return matrix[:, _RADIUS : _RADIUS + size]


def _laplacian(image: Tensor) -> Tensor:
    coarse = _smooth(image)[..., ::2, ::2]
    doubled = torch.zeros_like(image)
    doubled[..., ::2, ::2] = 4 * coarse  # times 4, as three of four pixels are zeros
    return image - _smooth(doubled)


def _smooth(image: Tensor) -> Tensor:
    channels = image.shape[1]
    axis = image.new_tensor([0.05, 0.25, 0.4, 0.25, 0.05])
    window = torch.outer(axis, axis).repeat(channels, 1, 1, 1)
    padded = F.pad(image, (2, 2, 2, 2), mode="replicate").contiguous()
    return F.conv2d(padded, window, groups=channels)
