"""Gated depthwise convolution in C, with gradients, for float32 and bfloat16 on a CPU.

It is compiled with `dwconv_c`, whose `AVAILABLE` says whether there is a compiler.
"""

from __future__ import annotations

import torch
from torch import Tensor

from basicsr.archs.ops import dwconv_c
from basicsr.archs.ops.custom_op import (
    Gradients,
    empty_channels_last,
    needs_operator,
    register_gradients,
)
from basicsr.archs.ops.gated_dwconv import gated_dwconv as eager_gated_dwconv


def _compute(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    (out,) = dwconv_c.compute(x, weight, bias, parts=2, gated=True)
    return out


@torch.library.custom_op("derain::gated_dwconv_c", mutates_args=(), device_types="cpu")
def _gated_dwconv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _compute(x, weight, bias)


@torch.library.custom_op("derain::gated_dwconv_c_backward", mutates_args=(), device_types="cpu")
def _gated_dwconv_backward(
    d_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    return dwconv_c.compute_gradients([d_out], x, weight, bias, parts=2, gated=True)


@_gated_dwconv.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return empty_channels_last(x, x.shape[1] // 2)


@_gated_dwconv_backward.register_fake
def _(
    d_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    return dwconv_c.empty_gradients(x, weight)


def _gradients(d_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Gradients:
    dx, d_weight, d_bias = _gated_dwconv_backward(d_out, x, weight, bias)
    return dx, d_weight, None if bias is None else d_bias


register_gradients(_gated_dwconv, _gradients, eager_gated_dwconv)


def gated_dwconv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return gelu(gate) * value, for `x` of a type in C_TYPES on a CPU."""
    weight, bias = weight.float(), None if bias is None else bias.float()
    compute = _gated_dwconv if needs_operator() else _compute
    return compute(x, weight, bias)
