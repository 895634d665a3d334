"""Depthwise convolution in C, with gradients, for float32 and bfloat16 on a CPU.

Importing this module compiles `dwconv.c` for this processor with GCC (the environment variable CC;
by default cc), and caches the library for all processes. `AVAILABLE` is false without a compiler;
PyTorch's own operations are used then.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from basicsr.archs.ops.c_compiler import compiled_library
from basicsr.archs.ops.custom_op import (
    C_TYPES,
    Gradients,
    channels_last,
    empty_channels_last,
    needs_operator,
    register_gradients,
)
from basicsr.archs.ops.dwconv import split_dwconv as eager_split_dwconv

SUMS, MOST_PARTS, MOST_CHANNELS = 10, 3, 192  # of dwconv.c
CACHE = 512 * 1024  # bytes of a core's cache for the rows of a block of channels
LINE = 32  # channels of a line of the cache in bf16; a block has a multiple of them
BAND = 16  # least rows of a band; the rows around a band are computed twice

_LIBRARY = compiled_library("dwconv.c")
AVAILABLE = _LIBRARY is not None


def call(
    name: str,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    results: Sequence[Tensor | None],
    *gradients: Tensor | None,
    parts: int,
    bands: int,
    block: int,
    gated: bool = False,
) -> None:
    """Call a function of `dwconv.c`; `gradients` are those that its backward pass writes."""
    n, c, h, w = x.shape
    assert c % parts == 0
    assert len(results) <= MOST_PARTS
    outs = [*results, *[None] * (MOST_PARTS - len(results))]
    tensors = (x, weight, bias, *outs, *gradients)
    addresses = [None if t is None else ctypes.c_void_p(t.data_ptr()) for t in tensors]
    numbers = (n, h, w, c // parts, parts, bands, block, gated, C_TYPES[x.dtype])
    if getattr(_LIBRARY, name)(*addresses, *map(ctypes.c_long, numbers)):
        raise MemoryError(f"{name}: cannot allocate memory for {w} columns")


def _split(x: Tensor, parts: int, gated: bool, rings: int) -> dict[str, int]:
    """Return the numbers of bands of rows and of channels of a block.

    The rows of a block fit the cache, and there are enough tasks to keep all threads busy.
    """
    n, c, h, w = x.shape
    lines = math.ceil(c / parts / LINE)
    halves, results = (2, 1) if gated else (1, parts)
    bytes_of_line = rings * halves * 3 * (w + 6) * LINE * 4
    most = max(1, min(CACHE // bytes_of_line, MOST_CHANNELS // LINE))
    wanted = math.ceil(4 * torch.get_num_threads() / max(1, n * results))
    blocks = max(math.ceil(lines / most), min(lines, wanted))
    bands = max(1, min(h // BAND, math.ceil(wanted / blocks)))
    return {"bands": bands, "block": math.ceil(lines / blocks) * LINE}


def _contiguous(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.contiguous()


def compute(
    x: Tensor, weight: Tensor, bias: Tensor | None, parts: int, gated: bool = False
) -> list[Tensor]:
    """Return the parts of the convolution, or one gated result."""
    x, weight, bias = channels_last(x), weight.contiguous(), _contiguous(bias)
    assert weight.numel() == 9 * x.shape[1]
    assert bias is None or bias.numel() == x.shape[1]
    outs = [empty_channels_last(x, x.shape[1] // parts) for _ in range(1 if gated else parts)]
    split = _split(x, parts, gated, rings=1)
    call("dwconv", x, weight, bias, outs, parts=parts, gated=gated, **split)
    return outs


def compute_gradients(
    d_outs: Sequence[Tensor],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    parts: int,
    gated: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias."""
    d_outs, x = [channels_last(d_out) for d_out in d_outs], channels_last(x)
    weight, bias = weight.contiguous(), _contiguous(bias)
    n, c, _, _ = x.shape
    split = _split(x, parts, gated, rings=2)
    dx, sums = empty_channels_last(x, c), weight.new_empty(n * split["bands"], SUMS, c)
    call("dwconv_backward", x, weight, bias, d_outs, dx, sums, parts=parts, gated=gated, **split)
    total = sums.sum(0)
    return dx, total[:-1].t().contiguous().view(weight.shape), total[-1].clone()


def empty_gradients(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return tensors like those of `compute_gradients`, with any values."""
    return (
        empty_channels_last(x, x.shape[1]),
        weight.new_empty(weight.shape),
        weight.new_empty(x.shape[1]),
    )


@torch.library.custom_op("derain::dwconv_c", mutates_args=(), device_types="cpu")
def _dwconv(x: Tensor, weight: Tensor, bias: Tensor | None, parts: int) -> list[Tensor]:
    return compute(x, weight, bias, parts)


@torch.library.custom_op("derain::dwconv_c_backward", mutates_args=(), device_types="cpu")
def _dwconv_backward(
    d_outs: Sequence[Tensor], x: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    return compute_gradients(d_outs, x, weight, bias, len(d_outs))


@_dwconv.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, parts: int) -> list[Tensor]:
    return [empty_channels_last(x, x.shape[1] // parts) for _ in range(parts)]


@_dwconv_backward.register_fake
def _(
    d_outs: Sequence[Tensor], x: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    return empty_gradients(x, weight)


def _gradients(
    d_outs: Sequence[Tensor], x: Tensor, weight: Tensor, bias: Tensor | None, parts: int
) -> Gradients:
    dx, d_weight, d_bias = _dwconv_backward(d_outs, x, weight, bias)
    return dx, d_weight, None if bias is None else d_bias, None


register_gradients(_dwconv, _gradients, eager_split_dwconv)


def split_dwconv(x: Tensor, weight: Tensor, bias: Tensor | None, parts: int) -> Sequence[Tensor]:
    """Return the parts of the convolution, for `x` of a type in C_TYPES on a CPU."""
    weight, bias = weight.float(), None if bias is None else bias.float()
    return (_dwconv if needs_operator() else compute)(x, weight, bias, parts)
