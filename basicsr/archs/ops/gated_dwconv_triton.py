"""Gated depthwise convolution in Triton, in programs like those of `dwconv_triton.py`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from basicsr.archs.ops.custom_op import (
    Gradients,
    channels_last,
    empty_channels_last,
    register_gradients,
)
from basicsr.archs.ops.dwconv_triton import bias_of, convolve, dwconv_gradients, place, tiling
from basicsr.archs.ops.gated_dwconv import gated_dwconv as eager_gated_dwconv
from basicsr.archs.ops.triton_common import FLOAT32


@triton.jit
def _normal_cdf(x):
    return 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def _gate_and_value(
    x, weight, bias, H, W, C: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Return this program's results of the convolution, the mask of those that exist, and their
    pixels and channels."""
    row, column, channel, in_image, exists, pixel = place(H, W, C, BLOCK_C)
    here = x + pixel[:, None] * (2 * C) + channel[None, :]
    weight += channel * 9
    gate = convolve(here, weight, row, column, exists, H, W, 2 * C)
    value = convolve(here + C, weight + 9 * C, row, column, exists, H, W, 2 * C)
    if HAS_BIAS:
        gate += bias_of(bias + channel, exists, x.dtype.element_ty)
        value += bias_of(bias + C + channel, exists, x.dtype.element_ty)
    return gate, value, in_image[:, None] & exists[None, :], pixel[:, None], channel[None, :]


@triton.jit
def _gated_forward(
    x, out, weight, bias, H, W, C: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK_C: tl.constexpr
):
    gate, value, real, pixel, channel = _gate_and_value(x, weight, bias, H, W, C, HAS_BIAS, BLOCK_C)
    result = gate * _normal_cdf(gate) * value
    tl.store(out + pixel * C + channel, result.to(out.dtype.element_ty), real)


@triton.jit
def _gate_backward(
    x,
    d_out,
    d_conv,
    weight,
    bias,
    H,
    W,
    C: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Compute the gradient of the convolution's result, which has 2C channels."""
    gate, value, real, pixel, channel = _gate_and_value(x, weight, bias, H, W, C, HAS_BIAS, BLOCK_C)
    d_result = tl.load(d_out + pixel * C + channel, real, 0.0).to(FLOAT32)
    below = _normal_cdf(gate)
    slope = below + gate * 0.3989422804014327 * tl.exp(-0.5 * gate * gate)
    to = d_conv + pixel * (2 * C) + channel
    tl.store(to, (d_result * value * slope).to(d_conv.dtype.element_ty), real)
    tl.store(to + C, (d_result * gate * below).to(d_conv.dtype.element_ty), real)


@torch.library.custom_op("derain::gated_dwconv", mutates_args=())
def _gated_dwconv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    x, weight = channels_last(x), weight.contiguous()
    _, c, h, w = x.shape
    out = empty_channels_last(x, c // 2)
    grid, blocks = tiling(x, c // 2)
    with torch.cuda.device_of(x):
        _gated_forward[grid](
            x, out, weight, bias, h, w, C=c // 2, HAS_BIAS=bias is not None, **blocks
        )
    return out


@torch.library.custom_op("derain::gate_backward", mutates_args=())
def _gate_gradient(d_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the gradient of the convolution's result, in the shape of `x`."""
    x, d_out, weight = channels_last(x), channels_last(d_out), weight.contiguous()
    _, c, h, w = x.shape
    d_conv = torch.empty_like(x)
    grid, blocks = tiling(x, c // 2)
    with torch.cuda.device_of(x):
        _gate_backward[grid](
            x, d_out, d_conv, weight, bias, h, w, C=c // 2, HAS_BIAS=bias is not None, **blocks
        )
    return d_conv


@_gated_dwconv.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return empty_channels_last(x, x.shape[1] // 2)


@_gate_gradient.register_fake
def _(d_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return empty_channels_last(x, x.shape[1])


def _gradients(d_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Gradients:
    return dwconv_gradients(_gate_gradient(d_out, x, weight, bias), x, weight, bias)


register_gradients(_gated_dwconv, _gradients, eager_gated_dwconv)


def gated_dwconv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return gelu(gate) * value for the halves of dwconv(x); see `gated_dwconv.py`."""
    return _gated_dwconv(x, weight, bias)
