"""Gram matrices in C, with gradients, for float32 and bfloat16 on a CPU.

`AVAILABLE` is false without a compiler; PyTorch's own operations are used then.
"""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor

from basicsr.archs.ops.c_compiler import compiled_library
from basicsr.archs.ops.custom_op import (
    C_TYPES,
    Gradients,
    channels_last,
    needs_operator,
    register_gradients,
)
from basicsr.archs.ops.gram import Gram
from basicsr.archs.ops.gram import gram_sums as eager_gram_sums

PART = 256  # least pixels of a part

_LIBRARY = compiled_library("gram.c")
AVAILABLE = _LIBRARY is not None


def _call(
    q: Tensor, k: Tensor, sums: Tensor, dq: Tensor | None, dk: Tensor | None, parts: int
) -> None:
    n, heads = sums.shape[:2]
    assert (q.shape, q.dtype) == (k.shape, k.dtype)
    addresses = [None if t is None else ctypes.c_void_p(t.data_ptr()) for t in (q, k, sums, dq, dk)]
    numbers = (n, q.shape[2] * q.shape[3], q.shape[1], heads, parts, C_TYPES[q.dtype])
    assert _LIBRARY is not None
    if _LIBRARY.gram(*addresses, *map(ctypes.c_long, numbers)):
        raise MemoryError("gram: cannot allocate memory")


def _parts(q: Tensor, heads: int) -> int:
    """Return how many parts of the pixels to compute in parallel, to keep all threads busy."""
    n, _, h, w = q.shape
    wanted = math.ceil(4 * torch.get_num_threads() / max(1, n * heads))
    return max(1, min(h * w // PART, wanted))


def _compute(q: Tensor, k: Tensor, heads: int) -> Tensor:
    """Return the sums as N x heads x (C/heads + 2) x C/heads: products, squares of q and of k."""
    q, k = channels_last(q), channels_last(k)
    n, c, _, _ = q.shape
    width, parts = c // heads, _parts(q, heads)
    sums = q.new_empty(n, heads, parts, width + 2, width, dtype=torch.float32)
    _call(q, k, sums, None, None, parts)
    return sums.sum(2) if parts > 1 else sums.squeeze(2)


@torch.library.custom_op("derain::gram_c", mutates_args=(), device_types="cpu")
def _gram(q: Tensor, k: Tensor, heads: int) -> Tensor:
    return _compute(q, k, heads)


@torch.library.custom_op("derain::gram_c_backward", mutates_args=(), device_types="cpu")
def _gram_backward(d_sums: Tensor, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    q, k, d_sums = channels_last(q), channels_last(k), d_sums.contiguous()
    dq, dk = torch.empty_like(q), torch.empty_like(k)
    _call(q, k, d_sums, dq, dk, _parts(q, d_sums.shape[1]))
    return dq, dk


@_gram.register_fake
def _(q: Tensor, k: Tensor, heads: int) -> Tensor:
    width = q.shape[1] // heads
    return q.new_empty(q.shape[0], heads, width + 2, width, dtype=torch.float32)


@_gram_backward.register_fake
def _(d_sums: Tensor, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    return (
        torch.empty_like(q, memory_format=torch.channels_last),
        torch.empty_like(k, memory_format=torch.channels_last),
    )


def _gradients(d_sums: Tensor, q: Tensor, k: Tensor, heads: int) -> Gradients:
    return *_gram_backward(d_sums, q, k), None


def _eager(q: Tensor, k: Tensor, heads: int) -> Tensor:
    products, q_squares, k_squares = eager_gram_sums(q, k, heads)
    return torch.cat([products, q_squares[:, :, None], k_squares[:, :, None]], dim=2)


register_gradients(_gram, _gradients, _eager)


def gram_sums(q: Tensor, k: Tensor, heads: int) -> Gram:
    """Sum products and squares of channels over the pixels; see `gram.py`."""
    sums = (_gram if needs_operator() else _compute)(q, k, heads)
    return Gram(sums[:, :, :-2], sums[:, :, -2], sums[:, :, -1])
