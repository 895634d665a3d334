"""Pointwise and depthwise convolutions of transformer blocks, in the order that is fastest."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from basicsr.archs.ops.dispatch import gated_dwconv, split_dwconv, uses_c
from basicsr.archs.ops.dwconv import dwconv
from basicsr.archs.ops.gated_dwconv import gelu_gate

# Hidden channels are padded to a multiple of this: in 16 bits, other widths are several times
# slower on a GPU, and the C version fills its vectors.
ALIGNMENT = 8


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the 1x1 convolution of `x`; in 16 bits on a GPU as one matrix product over pixels.

    In float32 convolutions are faster: those of oneDNN than MKL's products on AMD CPUs, and those
    of cuDNN are TF32 where products are not.
    """
    if not x.is_cuda or x.dtype == torch.float32:
        return F.conv2d(x, weight.view(*weight.shape[:2], 1, 1), bias)
    return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


def projections(
    x: Tensor, point: nn.Conv2d, depth: nn.Conv2d, first: int, last: int, count: int
) -> tuple[Tensor, ...]:
    """Return some of `count` equal parts, along the channels, of depth(point(x)).

    Without C, a CPU computes each part on its own: parts cut out of one result are not contiguous.
    Otherwise one large product is faster.

    Args:
        x: N x C x H x W.
        point: 1x1 convolution.
        depth: depthwise 3x3 convolution.
        first: the first part to return.
        last: the part after the last one to return.
        count: number of parts of the whole result.
    """
    width, wanted = point.out_channels // count, last - first
    together = x.is_cuda or uses_c(x)
    inner = [wanted * width] if together else [width] * wanted
    widths = [first * width, *inner, (count - last) * width]
    tensors = (point.weight, point.bias, depth.weight, depth.bias)
    split = [[None] * len(widths) if each is None else each.split(widths) for each in tensors]
    parts = list(zip(*split, strict=True))[1:-1]
    if together:
        ((w1, b1, w3, b3),) = parts
        return tuple(split_dwconv(pointwise(x, w1, b1), w3, b3, wanted))
    return tuple(dwconv(pointwise(x, w1, b1), w3, b3) for w1, b1, w3, b3 in parts)


def gated_projection(x: Tensor, point: nn.Conv2d, depth: nn.Conv2d) -> Tensor:
    """Return gelu(gate) * value, N x hidden x H x W, for the halves of depth(point(x)).

    On a GPU and in C, `hidden` is padded with zero channels to a multiple of ALIGNMENT.
    """
    if x.is_cuda or uses_c(x):
        return gated_dwconv(pointwise(x, *aligned_halves(point)), *aligned_halves(depth))
    return gelu_gate(*projections(x, point, depth, 0, 2, 2))


def hidden_projection(x: Tensor, point: nn.Conv2d) -> Tensor:
    """Return point(x); `x` may have more channels than `point` takes, which are zero."""
    weight, missing = point.weight, x.shape[1] - point.in_channels
    if torch.jit.is_tracing() or missing:  # in a trace, `missing` is a tensor
        weight = F.pad(weight.flatten(1), (0, missing))
    return pointwise(x, weight, point.bias)


def aligned_halves(conv: nn.Conv2d) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias with each half of the output channels zero-padded to ALIGNMENT."""

    def aligned(parameter: Tensor) -> Tensor:
        halves = parameter.unflatten(0, (2, -1))
        missing = -halves.shape[1] % ALIGNMENT
        if not missing:
            return parameter
        return F.pad(halves, [0, 0] * (halves.dim() - 2) + [0, missing]).flatten(0, 1)

    return aligned(conv.weight), None if conv.bias is None else aligned(conv.bias)
