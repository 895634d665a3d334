"""Channel normalisation in Triton. Each program normalises some pixels, with all channels."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from basicsr.archs.ops.channel_norm import channel_norm as eager_channel_norm
from basicsr.archs.ops.custom_op import Gradients, channels_last, register_gradients
from basicsr.archs.ops.triton_common import FLOAT32, multiprocessors


@triton.jit
def _norm_forward(
    x,
    y,
    weight,
    bias,
    pixels,
    eps,
    C: tl.constexpr,
    CENTRED: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    channel = tl.arange(0, BLOCK_C)
    exists = channel < C
    inside = (pixel < pixels)[:, None] & exists[None, :]
    at = pixel.to(tl.int64)[:, None] * C + channel[None, :]

    values = tl.load(x + at, inside, 0.0).to(FLOAT32)
    deviations = tl.where(inside, values - tl.sum(values, 1)[:, None] / C, 0.0)
    scale = tl.rsqrt(tl.sum(deviations * deviations, 1) / C + eps)[:, None]
    gain = tl.load(weight + channel, exists, 0.0).to(FLOAT32)[None, :]
    if CENTRED:
        offset = tl.load(bias + channel, exists, 0.0).to(FLOAT32)[None, :]
        result = deviations * scale * gain + offset
    else:
        result = values * scale * gain
    tl.store(y + at, result.to(y.dtype.element_ty), inside)


@triton.jit
def _norm_backward(
    x,
    dy,
    dx,
    weight,
    partial,
    pixels,
    eps,
    C: tl.constexpr,
    CENTRED: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Compute the gradient of x, and sums for the gradients of weight and bias.

    Each program processes blocks of pixels at a distance of the number of programs, and writes its
    sums to `partial`, programs x 2 x C.
    """
    channel = tl.arange(0, BLOCK_C)
    exists = channel < C
    gain = tl.load(weight + channel, exists, 0.0).to(FLOAT32)[None, :]
    d_weight = tl.zeros([BLOCK_P, BLOCK_C], FLOAT32)
    d_bias = tl.zeros([BLOCK_P, BLOCK_C], FLOAT32)
    for start in range(tl.program_id(0) * BLOCK_P, pixels, tl.num_programs(0) * BLOCK_P):
        pixel = start + tl.arange(0, BLOCK_P)
        inside = (pixel < pixels)[:, None] & exists[None, :]
        at = pixel.to(tl.int64)[:, None] * C + channel[None, :]
        values = tl.load(x + at, inside, 0.0).to(FLOAT32)
        d_result = tl.load(dy + at, inside, 0.0).to(FLOAT32)

        deviations = tl.where(inside, values - tl.sum(values, 1)[:, None] / C, 0.0)
        scale = tl.rsqrt(tl.sum(deviations * deviations, 1) / C + eps)[:, None]
        normalised = (deviations if CENTRED else values) * scale
        d_normalised = d_result * gain
        # the gradient through the scale, which depends only on the deviations
        shrinking = deviations * scale * tl.sum(d_normalised * normalised, 1)[:, None] / C
        d_values = (d_normalised - shrinking) * scale
        if CENTRED:
            d_values -= tl.sum(d_normalised, 1)[:, None] / C * scale
        tl.store(dx + at, d_values.to(dx.dtype.element_ty), inside)
        d_weight += d_result * normalised
        d_bias += d_result
    to = partial + tl.program_id(0) * 2 * C + channel
    tl.store(to, tl.sum(d_weight, 0), exists)
    tl.store(to + C, tl.sum(d_bias, 0), exists)


def _norm_blocks(channels: int) -> dict[str, int]:
    block_c = triton.next_power_of_2(channels)
    return {"BLOCK_C": block_c, "BLOCK_P": max(1, 2048 // block_c), "num_warps": 4}


@torch.library.custom_op("derain::channel_norm", mutates_args=())
def _channel_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    x = channels_last(x)
    n, c, h, w = x.shape
    y = torch.empty_like(x)
    blocks = _norm_blocks(c)
    with torch.cuda.device_of(x):
        _norm_forward[(triton.cdiv(n * h * w, blocks["BLOCK_P"]),)](
            x, y, weight, bias, n * h * w, eps, C=c, CENTRED=bias is not None, **blocks
        )
    return y


@torch.library.custom_op("derain::channel_norm_backward", mutates_args=())
def _channel_norm_backward(
    dy: Tensor, x: Tensor, weight: Tensor, centred: bool, eps: float
) -> tuple[Tensor, Tensor]:
    """Return the gradients of x, and of weight and bias as one 2 x C float32 tensor."""
    x, dy = channels_last(x), channels_last(dy)
    n, c, h, w = x.shape
    dx = torch.empty_like(x)
    blocks = _norm_blocks(c)
    programs = min(triton.cdiv(n * h * w, blocks["BLOCK_P"]), 8 * multiprocessors(x))
    partial = x.new_empty((programs, 2, c), dtype=torch.float32)
    with torch.cuda.device_of(x):
        _norm_backward[(programs,)](
            x, dy, dx, weight, partial, n * h * w, eps, C=c, CENTRED=centred, **blocks
        )
    return dx, partial.sum(0)


@_channel_norm.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


@_channel_norm_backward.register_fake
def _(dy: Tensor, x: Tensor, weight: Tensor, centred: bool, eps: float) -> tuple[Tensor, Tensor]:
    dx = torch.empty_like(x, memory_format=torch.channels_last)
    return dx, x.new_empty((2, x.shape[1]), dtype=torch.float32)


def _gradients(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Gradients:
    dx, sums = _channel_norm_backward(dy, x, weight, bias is not None, eps)
    d_weight, d_bias = sums.to(weight.dtype)
    return dx, d_weight, None if bias is None else d_bias, None


register_gradients(_channel_norm, _gradients, eager_channel_norm)


def channel_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float = 1e-5) -> Tensor:
    """Normalise each pixel's channels; see `channel_norm.py`."""
    return _channel_norm(x, weight, bias, eps)
