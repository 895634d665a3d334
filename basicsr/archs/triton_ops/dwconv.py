"""Depthwise 3x3 convolutions. A program has 4 x 16 pixels and 128 bytes of their channels."""

from __future__ import annotations

import inspect

import torch
import triton
import triton.language as tl
from torch import Tensor

from basicsr.archs import ops
from basicsr.archs.operators import Gradients, channels_last, differentiable, empty_pixels
from basicsr.archs.triton_ops.common import FLOAT32

ROWS, COLUMNS = tl.constexpr(4), tl.constexpr(16)


@triton.jit
def _place(H, W, C: tl.constexpr, BLOCK_C: tl.constexpr):
    """Rows, columns and channels of this program; which of the pixels and of the channels exist;
    the number of each pixel among those of all images."""
    tile = tl.arange(0, ROWS * COLUMNS)
    row_tiles = tl.cdiv(H, ROWS)
    row = tl.program_id(2) % row_tiles * ROWS + tile // COLUMNS
    column = tl.program_id(1) * COLUMNS + tile % COLUMNS
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    image = (tl.program_id(2) // row_tiles).to(tl.int64)
    pixel = (image * H + row) * W + column
    return row, column, channel, (row < H) & (column < W), channel < C, pixel


@triton.jit
def _real(row, column, H, W):
    return (row >= 0) & (row < H) & (column >= 0) & (column < W)


@triton.jit
def _offset(bias, exists, dtype: tl.constexpr):
    return tl.load(bias, exists, 0.0).to(dtype).to(FLOAT32)[None, :]


@triton.jit
def _convolved(here, weight, row, column, exists, H, W, WIDTH: tl.constexpr):
    """The convolution's float32 result where `here` points in a tensor of WIDTH channels, with the
    nine numbers that follow what `weight` points to."""
    dtype: tl.constexpr = here.dtype.element_ty
    total = tl.zeros(here.shape, FLOAT32)
    for i in range(3):
        for j in tl.static_range(3):
            real = _real(row + (i - 1), column + (j - 1), H, W)[:, None] & exists[None, :]
            values = tl.load(here + ((i - 1) * W + (j - 1)) * WIDTH, real, 0.0)
            # rounded as the eager twin rounds them
            factor = tl.load(weight + 3 * i + j, exists, 0.0).to(dtype)
            total += values.to(FLOAT32) * factor.to(FLOAT32)[None, :]
    return total


@triton.jit
def _forward(
    x, out, weight, bias, H, W, C: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK_C: tl.constexpr
):
    row, column, channel, in_image, exists, pixel = _place(H, W, C, BLOCK_C)
    at = pixel[:, None] * C + channel[None, :]
    result = _convolved(x + at, weight + channel * 9, row, column, exists, H, W, C)
    if HAS_BIAS:
        result += _offset(bias + channel, exists, x.dtype.element_ty)
    tl.store(out + at, result.to(out.dtype.element_ty), in_image[:, None] & exists[None, :])


@triton.jit
def _normal_cdf(x):
    return 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def _gate_and_value(
    x, weight, bias, H, W, C: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK_C: tl.constexpr
):
    """This program's results of the convolution, and which of them exist at what pixels and
    channels."""
    row, column, channel, in_image, exists, pixel = _place(H, W, C, BLOCK_C)
    here = x + pixel[:, None] * (2 * C) + channel[None, :]
    weight += channel * 9
    gate = _convolved(here, weight, row, column, exists, H, W, 2 * C)
    value = _convolved(here + C, weight + 9 * C, row, column, exists, H, W, 2 * C)
    if HAS_BIAS:
        gate += _offset(bias + channel, exists, x.dtype.element_ty)
        value += _offset(bias + C + channel, exists, x.dtype.element_ty)
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
    """From the gradient of the gated result to that of the convolution's, which is 2C wide."""
    gate, value, real, pixel, channel = _gate_and_value(x, weight, bias, H, W, C, HAS_BIAS, BLOCK_C)
    d_result = tl.load(d_out + pixel * C + channel, real, 0.0).to(FLOAT32)
    below = _normal_cdf(gate)
    slope = below + gate * 0.3989422804014327 * tl.exp(-0.5 * gate * gate)
    to = d_conv + pixel * (2 * C) + channel
    tl.store(to, (d_result * value * slope).to(d_conv.dtype.element_ty), real)
    tl.store(to + C, (d_result * gate * below).to(d_conv.dtype.element_ty), real)


@triton.jit
def _backward(x, d_conv, dx, weight, partial, H, W, C: tl.constexpr, BLOCK_C: tl.constexpr):
    """The gradient of a depthwise convolution's input, and of its weight: this program's share of
    the sum over pixels, in `partial`, tiles x 9 x C."""
    row, column, channel, in_image, exists, pixel = _place(H, W, C, BLOCK_C)
    inside = in_image[:, None] & exists[None, :]
    at = pixel[:, None] * C + channel[None, :]
    values = tl.load(x + at, inside, 0.0).to(FLOAT32)
    weight += channel * 9
    tile = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    partial += tile.to(tl.int64) * (9 * C) + channel
    total = tl.zeros(at.shape, FLOAT32)
    for i in range(3):
        for j in tl.static_range(3):
            # what this pixel contributed to through weight (i, j)
            real = _real(row - (i - 1), column - (j - 1), H, W)[:, None] & exists[None, :]
            theirs = tl.load(d_conv + at - ((i - 1) * W + (j - 1)) * C, real, 0.0).to(FLOAT32)
            factor = tl.load(weight + 3 * i + j, exists, 0.0).to(x.dtype.element_ty)
            total += theirs * factor.to(FLOAT32)[None, :]
            tl.store(partial + (3 * i + j) * C, tl.sum(values * theirs, 0), exists)
    tl.store(dx + at, total.to(dx.dtype.element_ty), inside)


def _tiling(x: Tensor, channels: int) -> tuple[tuple[int, int, int], dict[str, int]]:
    """The grid of programs, and the constants of a launch."""
    n, _, h, w = x.shape
    block_c = 128 // x.element_size()
    tiles = triton.cdiv(w, COLUMNS.value), n * triton.cdiv(h, ROWS.value)
    return (triton.cdiv(channels, block_c), *tiles), {"BLOCK_C": block_c, "num_warps": block_c // 4}


@torch.library.custom_op("derain::dwconv", mutates_args=())
def _dwconv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    x, weight = channels_last(x), weight.contiguous()
    _, c, h, w = x.shape
    out = torch.empty_like(x)
    grid, blocks = _tiling(x, c)
    with torch.cuda.device_of(x):
        _forward[grid](x, out, weight, bias, h, w, C=c, HAS_BIAS=bias is not None, **blocks)
    return out


@torch.library.custom_op("derain::gated_dwconv", mutates_args=())
def _gated_dwconv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    x, weight = channels_last(x), weight.contiguous()
    _, c, h, w = x.shape
    out = empty_pixels(x, c // 2)
    grid, blocks = _tiling(x, c // 2)
    with torch.cuda.device_of(x):
        _gated_forward[grid](
            x, out, weight, bias, h, w, C=c // 2, HAS_BIAS=bias is not None, **blocks
        )
    return out


@torch.library.custom_op("derain::dwconv_backward", mutates_args=())
def _dwconv_backward(d_out: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of x, and of weight, in float32."""
    x, d_out, weight = channels_last(x), channels_last(d_out), weight.contiguous()
    _, c, h, w = x.shape
    dx = torch.empty_like(x)
    grid, blocks = _tiling(x, c)
    partial = x.new_empty((grid[1] * grid[2], 9, c), dtype=torch.float32)
    with torch.cuda.device_of(x):
        _backward[grid](x, d_out, dx, weight, partial, h, w, C=c, **blocks)
    return dx, partial.sum(0).t().contiguous().view(weight.shape)


@torch.library.custom_op("derain::gate_backward", mutates_args=())
def _gate_gradient(d_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The gradient of what is gated, the convolution's result, like `x`."""
    x, d_out, weight = channels_last(x), channels_last(d_out), weight.contiguous()
    _, c, h, w = x.shape
    d_conv = torch.empty_like(x)
    grid, blocks = _tiling(x, c // 2)
    with torch.cuda.device_of(x):
        _gate_backward[grid](
            x, d_out, d_conv, weight, bias, h, w, C=c // 2, HAS_BIAS=bias is not None, **blocks
        )
    return d_conv


@_dwconv.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return empty_pixels(x, x.shape[1])


@_gated_dwconv.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return empty_pixels(x, x.shape[1] // 2)


@_dwconv_backward.register_fake
def _(d_out: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return empty_pixels(x, x.shape[1]), x.new_empty(weight.shape, dtype=torch.float32)


@_gate_gradient.register_fake
def _(d_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return empty_pixels(x, x.shape[1])


def _gradients(d_conv: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Gradients:
    dx, d_weight = _dwconv_backward(d_conv, x, weight)
    d_bias = None if bias is None else d_conv.sum((0, 2, 3), dtype=torch.float32).to(bias.dtype)
    return dx, d_weight.to(weight.dtype), d_bias


def _gated_gradients(d_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Gradients:
    return _gradients(_gate_gradient(d_out, x, weight, bias), x, weight, bias)


differentiable(_dwconv, _gradients, inspect.unwrap(ops.dwconv))
differentiable(_gated_dwconv, _gated_gradients, inspect.unwrap(ops.gated_dwconv))


def dwconv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _dwconv(x, weight, bias)


def gated_dwconv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _gated_dwconv(x, weight, bias)
