"""Depthwise 3x3 convolution."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def dwconv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the depthwise 3x3 convolution of `x` with zero padding.

    It has the type of `x`, or that of autocast. Sums are accumulated in float32.

    Args:
        x: N x C x H x W.
        weight: C x 1 x 3 x 3, rounded to the type of `x`.
        bias: C numbers, rounded likewise, or None.
    """
    weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
    return F.conv2d(x, weight, bias, padding=1, groups=x.shape[1])


def split_dwconv(x: Tensor, weight: Tensor, bias: Tensor | None, parts: int) -> tuple[Tensor, ...]:
    """Return dwconv(x) as `parts` tensors of N x C/parts x H x W."""
    return dwconv(x, weight, bias).chunk(parts, dim=1)
