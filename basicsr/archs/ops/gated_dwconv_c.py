"""Gated depthwise convolution in C, with gradients, for float32 and bfloat16 on a CPU.

Importing this module compiles it for this processor with GCC (the environment variable CC; by
default cc), and caches the library for all processes. `AVAILABLE` is false without a compiler;
PyTorch's own operations are used then.
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
    empty_channels_last,
    needs_operator,
    register_gradients,
)
from basicsr.archs.ops.gated_dwconv import gated_dwconv as eager_gated_dwconv

BLOCK, SUMS = 16, 10  # of gated_dwconv.c
BAND = 16  # least rows of a band; the rows around a band are computed twice

_LIBRARY = compiled_library("gated_dwconv.c")
AVAILABLE = _LIBRARY is not None


def _bands(x: Tensor) -> int:
    """Return how many bands of rows to compute in parallel: enough to keep all threads busy."""
    n, c, h, _ = x.shape
    tasks = max(1, n * math.ceil(c / (2 * BLOCK)))
    return max(1, min(h // BAND, math.ceil(8 * torch.get_num_threads() / tasks)))


def _call(name: str, x: Tensor, *tensors: Tensor | None, bands: int) -> None:
    n, c, h, w = x.shape
    assert c % 2 == 0
    addresses = [None if t is None else ctypes.c_void_p(t.data_ptr()) for t in (x, *tensors)]
    sizes = [ctypes.c_long(size) for size in (n, h, w, c // 2, bands, C_TYPES[x.dtype])]
    if getattr(_LIBRARY, name)(*addresses, *sizes):
        raise MemoryError(f"{name}: cannot allocate memory for {w} columns")


def _contiguous(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.contiguous()


def _compute(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    x, weight, bias = channels_last(x), weight.contiguous(), _contiguous(bias)
    assert weight.numel() == 9 * x.shape[1]
    out = empty_channels_last(x, x.shape[1] // 2)
    _call("gated_dwconv", x, weight, bias, out, bands=_bands(x))
    return out


@torch.library.custom_op("derain::gated_dwconv_c", mutates_args=(), device_types="cpu")
def _gated_dwconv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _compute(x, weight, bias)


@torch.library.custom_op("derain::gated_dwconv_c_backward", mutates_args=(), device_types="cpu")
def _gated_dwconv_backward(
    d_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias."""
    d_out, x = channels_last(d_out), channels_last(x)
    weight, bias = weight.contiguous(), _contiguous(bias)
    n, c, _, _ = x.shape
    bands = _bands(x)
    dx, sums = empty_channels_last(x, c), weight.new_empty(n * bands, SUMS, c)
    _call("gated_dwconv_backward", x, weight, bias, d_out, dx, sums, bands=bands)
    total = sums.sum(0)
    return dx, total[:-1].t().contiguous().view(weight.shape), total[-1].clone()


@_gated_dwconv.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return empty_channels_last(x, x.shape[1] // 2)


@_gated_dwconv_backward.register_fake
def _(
    d_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        empty_channels_last(x, x.shape[1]),
        weight.new_empty(weight.shape),
        weight.new_empty(x.shape[1]),
    )


def _gradients(d_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Gradients:
    dx, d_weight, d_bias = _gated_dwconv_backward(d_out, x, weight, bias)
    return dx, d_weight, None if bias is None else d_bias


register_gradients(_gated_dwconv, _gradients, eager_gated_dwconv)


def gated_dwconv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return gelu(gate) * value, for `x` of a type in C_TYPES on a CPU."""
    weight, bias = weight.float(), None if bias is None else bias.float()
    compute = _gated_dwconv if needs_operator() else _compute
    return compute(x, weight, bias)
