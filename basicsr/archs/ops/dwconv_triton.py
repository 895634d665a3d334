"""Depthwise 3x3 convolution in Triton.

Each program computes 4 x 16 pixels, with 128 bytes of channels.
"""

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
from basicsr.archs.ops.dwconv import dwconv as eager_dwconv
from basicsr.archs.ops.triton_common import FLOAT32

ROWS, COLUMNS = tl.constexpr(4), tl.constexpr(16)


@triton.jit
def place(H, W, C: tl.constexpr, BLOCK_C: tl.constexpr):
    """Return rows, columns and channels of this program, masks of the pixels and channels that
    exist, and the index of each pixel among those of all images."""
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
def bias_of(bias, exists, dtype: tl.constexpr):
    """Load the bias, rounded to `dtype`, as float32."""
    return tl.load(bias, exists, 0.0).to(dtype).to(FLOAT32)[None, :]


@triton.jit
def convolve(here, weight, row, column, exists, H, W, WIDTH: tl.constexpr):
    """Return the convolution's float32 result at `here`, in a tensor of WIDTH channels, with the
    nine numbers from `weight` on."""
    dtype: tl.constexpr = here.dtype.element_ty
    total = tl.zeros(here.shape, FLOAT32)
    for i in range(3):
        for j in tl.static_range(3):
            real = _real(row + (i - 1), column + (j - 1), H, W)[:, None] & exists[None, :]
            values = tl.load(here + ((i - 1) * W + (j - 1)) * WIDTH, real, 0.0)
            # rounded as in the definition in PyTorch
            factor = tl.load(weight + 3 * i + j, exists, 0.0).to(dtype)
            total += values.to(FLOAT32) * factor.to(FLOAT32)[None, :]
    return total


@triton.jit
def _forward(
    x, out, weight, bias, H, W, C: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK_C: tl.constexpr
):
    row, column, channel, in_image, exists, pixel = place(H, W, C, BLOCK_C)
    at = pixel[:, None] * C + channel[None, :]
    result = convolve(x + at, weight + channel * 9, row, column, exists, H, W, C)
    if HAS_BIAS:
        result += bias_of(bias + channel, exists, x.dtype.element_ty)
    tl.store(out + at, result.to(out.dtype.element_ty), in_image[:, None] & exists[None, :])


@triton.jit
def _backward(x, d_conv, dx, weight, partial, H, W, C: tl.constexpr, BLOCK_C: tl.constexpr):
    """Compute the gradient of the input, and this program's share of that of the weight: its sum
    over pixels, in `partial`, tiles x 9 x C."""
    row, column, channel, in_image, exists, pixel = place(H, W, C, BLOCK_C)
    inside = in_image[:, None] & exists[None, :]
    at = pixel[:, None] * C + channel[None, :]
    values = tl.load(x + at, inside, 0.0).to(FLOAT32)
    weight += channel * 9
    tile = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    partial += tile.to(tl.int64) * (9 * C) + channel
    total = tl.zeros(at.shape, FLOAT32)
    for i in range(3):
        for j in tl.static_range(3):
            # the output that this pixel reaches through weight (i, j)
            real = _real(row - (i - 1), column - (j - 1), H, W)[:, None] & exists[None, :]
            theirs = tl.load(d_conv + at - ((i - 1) * W + (j - 1)) * C, real, 0.0).to(FLOAT32)
            factor = tl.load(weight + 3 * i + j, exists, 0.0).to(x.dtype.element_ty)
            total += theirs * factor.to(FLOAT32)[None, :]
            tl.store(partial + (3 * i + j) * C, tl.sum(values * theirs, 0), exists)
    tl.store(dx + at, total.to(dx.dtype.element_ty), inside)


def tiling(x: Tensor, channels: int) -> tuple[tuple[int, int, int], dict[str, int]]:
    """Return the grid of programs and the constants of a launch."""
    n, _, h, w = x.shape
    block_c = 128 // x.element_size()
    tiles = triton.cdiv(w, COLUMNS.value), n * triton.cdiv(h, ROWS.value)
    return (triton.cdiv(channels, block_c), *tiles), {"BLOCK_C": block_c, "num_warps": block_c // 4}


@torch.library.custom_op("derain::dwconv", mutates_args=())
def _dwconv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    x, weight = channels_last(x), weight.contiguous()
    _, c, h, w = x.shape
    out = torch.empty_like(x)
    grid, blocks = tiling(x, c)
    with torch.cuda.device_of(x):
        _forward[grid](x, out, weight, bias, h, w, C=c, HAS_BIAS=bias is not None, **blocks)
    return out


@torch.library.custom_op("derain::dwconv_backward", mutates_args=())
def _dwconv_backward(d_out: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of x, and of weight in float32."""
    x, d_out, weight = channels_last(x), channels_last(d_out), weight.contiguous()
    _, c, h, w = x.shape
    dx = torch.empty_like(x)
    grid, blocks = tiling(x, c)
    partial = x.new_empty((grid[1] * grid[2], 9, c), dtype=torch.float32)
    with torch.cuda.device_of(x):
        _backward[grid](x, d_out, dx, weight, partial, h, w, C=c, **blocks)
    return dx, partial.sum(0).t().contiguous().view(weight.shape)


@_dwconv.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return empty_channels_last(x, x.shape[1])


@_dwconv_backward.register_fake
def _(d_out: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return empty_channels_last(x, x.shape[1]), x.new_empty(weight.shape, dtype=torch.float32)


def dwconv_gradients(d_conv: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Gradients:
    dx, d_weight = _dwconv_backward(d_conv, x, weight)
    d_bias = None if bias is None else d_conv.sum((0, 2, 3), dtype=torch.float32).to(bias.dtype)
    return dx, d_weight.to(weight.dtype), d_bias


register_gradients(_dwconv, dwconv_gradients, eager_dwconv)


def dwconv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the depthwise 3x3 convolution of `x`; see `dwconv.py`."""
    return _dwconv(x, weight, bias)
