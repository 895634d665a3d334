"""Gram matrices of transposed attention in Triton.

Each program sums over some pixels of an image, for the channels of one head.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from basicsr.archs.ops.custom_op import empty_channels_last, register_gradients
from basicsr.archs.ops.gram import Gram
from basicsr.archs.ops.gram import gram_sums as eager_gram_sums
from basicsr.archs.ops.triton_common import FLOAT32, multiprocessors


@triton.jit
def _tile(image, pixel, end, stride, C: tl.constexpr, BLOCK_C: tl.constexpr):
    """Load the channels of pixels; they are 0 from pixel `end` on."""
    channel = tl.arange(0, BLOCK_C)
    inside = (pixel < end)[:, None] & (channel < C)[None, :]
    return tl.load(image + pixel.to(tl.int64)[:, None] * stride + channel[None, :], inside, 0.0)


@triton.jit
def _gram_forward(
    q,
    k,
    partial,
    pixels,
    span,
    q_image,
    q_pixel,
    k_image,
    k_pixel,
    C: tl.constexpr,
    OPERAND: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Write sums over a span of pixels: splits x images x heads x (C + 2) x C, squares last."""
    split, head, image = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    q += image.to(tl.int64) * q_image + head * C
    k += image.to(tl.int64) * k_image + head * C
    products = tl.zeros([BLOCK_C, BLOCK_C], FLOAT32)
    q_squares = tl.zeros([BLOCK_P, BLOCK_C], FLOAT32)
    k_squares = tl.zeros([BLOCK_P, BLOCK_C], FLOAT32)
    end = tl.minimum((split + 1) * span, pixels)
    for start in range(split * span, end, BLOCK_P):
        pixel = start + tl.arange(0, BLOCK_P)
        q_tile = _tile(q, pixel, end, q_pixel, C, BLOCK_C)
        k_tile = _tile(k, pixel, end, k_pixel, C, BLOCK_C)
        products = tl.dot(
            tl.trans(q_tile.to(OPERAND)), k_tile.to(OPERAND), products, input_precision="tf32"
        )
        q_squares += q_tile.to(FLOAT32) * q_tile.to(FLOAT32)
        k_squares += k_tile.to(FLOAT32) * k_tile.to(FLOAT32)
    channel = tl.arange(0, BLOCK_C)
    exists = channel < C
    order = (split * tl.num_programs(2) + image) * tl.num_programs(1) + head
    partial += order.to(tl.int64) * (C + 2) * C
    to = partial + channel[:, None] * C + channel[None, :]
    tl.store(to, products, exists[:, None] & exists[None, :])
    tl.store(partial + C * C + channel, tl.sum(q_squares, 0), exists)
    tl.store(partial + C * C + C + channel, tl.sum(k_squares, 0), exists)


@triton.jit
def _gram_backward(
    q,
    k,
    dq,
    dk,
    d_sums,
    pixels,
    q_image,
    q_pixel,
    k_image,
    k_pixel,
    C: tl.constexpr,
    OPERAND: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    split, head, image = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    channel = tl.arange(0, BLOCK_C)
    exists = channel < C
    d_sums += (image * tl.num_programs(1) + head) * (C + 2) * C
    at = d_sums + channel[:, None] * C + channel[None, :]
    d_products = tl.load(at, exists[:, None] & exists[None, :], 0.0).to(OPERAND)
    q_factor = 2 * tl.load(d_sums + C * C + channel, exists, 0.0)
    k_factor = 2 * tl.load(d_sums + C * C + C + channel, exists, 0.0)

    pixel = split * BLOCK_P + tl.arange(0, BLOCK_P)
    q_tile = _tile(q + image.to(tl.int64) * q_image + head * C, pixel, pixels, q_pixel, C, BLOCK_C)
    k_tile = _tile(k + image.to(tl.int64) * k_image + head * C, pixel, pixels, k_pixel, C, BLOCK_C)
    q_result = q_tile.to(FLOAT32) * q_factor[None, :]
    k_result = k_tile.to(FLOAT32) * k_factor[None, :]
    q_result = tl.dot(k_tile.to(OPERAND), tl.trans(d_products), q_result, input_precision="tf32")
    k_result = tl.dot(q_tile.to(OPERAND), d_products, k_result, input_precision="tf32")

    width = tl.num_programs(1) * C
    to = (image.to(tl.int64) * pixels + pixel)[:, None] * width + head * C + channel[None, :]
    inside = (pixel < pixels)[:, None] & exists[None, :]
    tl.store(dq + to, q_result.to(dq.dtype.element_ty), inside)
    tl.store(dk + to, k_result.to(dk.dtype.element_ty), inside)


def _pixels(x: Tensor) -> Tensor:
    """Return `x` as N x HW x C with contiguous channels; a view if it is part of a wider tensor."""
    pixels = x.permute(0, 2, 3, 1).flatten(1, 2)
    return pixels if pixels.stride(2) == 1 else pixels.contiguous()


@torch.compiler.assume_constant_result
def _widest_head() -> int:
    """Return how many channels fit into a program's registers and shared memory.

    The gradient for 96 channels takes 128 KiB of shared memory, which only data-centre GPUs have.
    """
    if not torch.cuda.is_available():  # the interpreter
        return 128
    return 128 if torch.cuda.get_device_properties().shared_memory_per_block_optin > 2**17 else 64


def _blocks(x: Tensor, channels: int) -> dict[str, Any]:
    """Return the constants of a launch."""
    block_c = max(16, triton.next_power_of_2(channels))
    # the interpreter cannot multiply matrices of bfloat16
    exact = x.dtype == torch.float32 or os.environ.get("TRITON_INTERPRET") == "1"
    return {
        "C": channels,
        "OPERAND": tl.float32 if exact else getattr(tl, str(x.dtype).removeprefix("torch.")),
        "BLOCK_C": block_c,
        "BLOCK_P": 128 // x.element_size(),
        "num_warps": 4 if block_c <= 64 else 8,
    }


@torch.library.custom_op("derain::gram_sums", mutates_args=())
def _gram_sums(q: Tensor, k: Tensor, heads: int) -> Tensor:
    """Return N x heads x (C/heads + 2) x C/heads: products, and squares in the last two rows."""
    n, c, _, _ = q.shape
    q, k = _pixels(q), _pixels(k)
    pixels = q.shape[1]
    blocks = _blocks(q, c // heads)
    # enough programs to fill the device, but each with enough pixels to be worth its sums
    wanted = triton.cdiv(2 * multiprocessors(q), n * heads)
    span = max(triton.cdiv(pixels, wanted), 4 * blocks["BLOCK_P"])
    splits = triton.cdiv(pixels, span)
    partial = q.new_empty((splits, n, heads, c // heads + 2, c // heads), dtype=torch.float32)
    with torch.cuda.device_of(q):
        _gram_forward[(splits, heads, n)](
            *(q, k, partial, pixels, span),
            *(q.stride(0), q.stride(1), k.stride(0), k.stride(1)),
            **blocks,
        )
    return partial.sum(0)


@torch.library.custom_op("derain::gram_sums_backward", mutates_args=())
def _gram_sums_backward(d_sums: Tensor, q: Tensor, k: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    n, c, _, _ = q.shape
    dq, dk = empty_channels_last(q, c), empty_channels_last(k, c)
    q, k = _pixels(q), _pixels(k)
    pixels = q.shape[1]
    blocks = _blocks(q, c // heads)
    with torch.cuda.device_of(q):
        _gram_backward[(triton.cdiv(pixels, blocks["BLOCK_P"]), heads, n)](
            *(q, k, dq, dk, d_sums.contiguous(), pixels),
            *(q.stride(0), q.stride(1), k.stride(0), k.stride(1)),
            **blocks,
        )
    return dq, dk


@_gram_sums.register_fake
def _(q: Tensor, k: Tensor, heads: int) -> Tensor:
    n, c, _, _ = q.shape
    return q.new_empty((n, heads, c // heads + 2, c // heads), dtype=torch.float32)


@_gram_sums_backward.register_fake
def _(d_sums: Tensor, q: Tensor, k: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    return empty_channels_last(q, q.shape[1]), empty_channels_last(k, k.shape[1])


def _eager(q: Tensor, k: Tensor, heads: int) -> Tensor:
    gram = eager_gram_sums(q, k, heads)
    return torch.cat([gram.products, gram.q_squares[:, :, None], gram.k_squares[:, :, None]], 2)


register_gradients(
    _gram_sums,
    lambda grad, q, k, heads: (*_gram_sums_backward(grad, q, k, heads), None),
    _eager,
)


@torch.compiler.assume_constant_result
def _products_are_exact() -> bool:
    return torch.get_float32_matmul_precision() == "highest"


def gram_sums(q: Tensor, k: Tensor, heads: int) -> Gram:
    """Sum products and squares of channels over the pixels; see `gram.py`.

    Exact float32 products are left to cuBLAS: without tensor cores, arithmetic limits their speed.
    """
    c = q.shape[1] // heads
    if c > _widest_head() or (q.dtype == torch.float32 and _products_are_exact()):
        return eager_gram_sums(q, k, heads)
    products, q_squares, k_squares = _gram_sums(q, k, heads).split([c, 1, 1], dim=2)
    return Gram(products, q_squares[:, :, 0], k_squares[:, :, 0])
