"""The memory-bound operations of the transformer blocks, apart from the modules that call them.

All take N x C x H x W tensors of any floating type, quickest in `torch.channels_last`, and give
what can be differentiated. Statistics are float32 at least, whatever the type of `x` and under
autocast too. On CUDA, where Triton can be imported, the function of the same name and arguments in
`triton_ops` computes an operation (but for float64, which has no kernels).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import NamedTuple, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def _with_kernels(eager: Callable[P, R]) -> Callable[P, R]:
    """`eager`, or its twin in `triton_ops` where the first argument is a tensor that it takes."""

    @functools.wraps(eager)
    def dispatched(*args: P.args, **kwargs: P.kwargs) -> R:
        first = args[0]
        assert isinstance(first, Tensor)
        if first.is_cuda and first.dtype != torch.float64 and HAS_TRITON:
            twin = getattr(importlib.import_module("basicsr.archs.triton_ops"), eager.__name__)
            return twin(*args, **kwargs)
        return eager(*args, **kwargs)

    return dispatched


HAS_TRITON = importlib.util.find_spec("triton") is not None


class Gram(NamedTuple):
    """Sums over pixels; those of several strips of an image add up to those of the image."""

    products: Tensor  # N x heads x C/heads x C/heads: q's channels by k's
    q_squares: Tensor  # N x heads x C/heads
    k_squares: Tensor  # N x heads x C/heads


@_with_kernels
def channel_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float = 1e-5) -> Tensor:
    """Normalise each pixel's C channels; the result has the shape, type and format of `x`.

    (x - mean) / sqrt(variance + eps) * weight + bias; without `bias` it is
    x / sqrt(variance + eps) * weight, of the same variance, but `x` is not centred. `weight` and
    `bias` have C numbers, float32 (float64 for a float64 `x`), in which everything is computed.
    """
    pixels = x.permute(0, 2, 3, 1).to(weight.dtype)
    if bias is None:
        variance = pixels.var(dim=-1, keepdim=True, unbiased=False)
        pixels = pixels * torch.rsqrt(variance + eps) * weight
    else:
        pixels = F.layer_norm(pixels, weight.shape, weight, bias, eps)
    return pixels.permute(0, 3, 1, 2).to(x.dtype)


@_with_kernels
def gated_dwconv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """gelu(gate) * value, N x C/2 x H x W: the halves of `x` after a depthwise 3x3 convolution.

    `weight` is C x 1 x 3 x 3, `bias` C numbers, rounded to the type of `x`, which is the result's;
    sums are kept in float32. Borders are zero, the GELU is the exact one.
    """
    weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
    gate, value = F.conv2d(x, weight, bias, padding=1, groups=x.shape[1]).chunk(2, dim=1)
    return F.gelu(gate) * value


@_with_kernels
def gram_sums(q: Tensor, k: Tensor, heads: int) -> Gram:
    """Products of q's and k's channels and their squares, summed over the pixels, by heads.

    Both are N x C x H x W of one type, head h having the channels [h C/heads, (h+1) C/heads). The
    sums are float32, or float64 for float64 tensors.
    """
    precise = torch.promote_types(q.dtype, torch.float32)
    n, c, _, _ = q.shape
    q, k = (x.to(precise).flatten(2).view(n, heads, c // heads, -1) for x in (q, k))
    return Gram(q @ k.transpose(-2, -1), q.square().sum(-1), k.square().sum(-1))


def cosines(gram: Gram) -> Tensor:
    """The cosine similarity of each of q's channels to each of k's: N x heads x C/heads x C/heads.

    A channel of zeros is similar to none.
    """
    q_norms, k_norms = (
        squares.clamp_min(1e-24).sqrt() for squares in (gram.q_squares, gram.k_squares)
    )
    return gram.products / (q_norms[..., :, None] * k_norms[..., None, :])
