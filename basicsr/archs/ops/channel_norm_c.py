"""Channel normalisation in C, with gradients, for float32 and bfloat16 on a CPU.

`AVAILABLE` is false without a compiler; PyTorch's own operations are used then.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from basicsr.archs.ops.c_compiler import compiled_library
from basicsr.archs.ops.channel_norm import channel_norm as eager_channel_norm
from basicsr.archs.ops.custom_op import (
    C_TYPES,
    Gradients,
    channels_last,
    needs_operator,
    register_gradients,
)

_LIBRARY = compiled_library("channel_norm.c")
AVAILABLE = _LIBRARY is not None


def _call(
    name: str, tensors: tuple[Tensor | None, ...], sizes: tuple[int, ...], eps: float
) -> None:
    """Call the C function `name` with the addresses of `tensors`; the first is x."""
    assert tensors[0] is not None
    addresses = [None if t is None else ctypes.c_void_p(t.data_ptr()) for t in tensors]
    dtype = ctypes.c_long(C_TYPES[tensors[0].dtype])
    getattr(_LIBRARY, name)(*addresses, *map(ctypes.c_long, sizes), ctypes.c_float(eps), dtype)


def _compute_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    x = channels_last(x)
    n, c, h, w = x.shape
    assert weight.numel() == c
    out = torch.empty_like(x)
    _call("channel_norm", (x, weight, bias, out), (n * h * w, c), eps)
    return out


@torch.library.custom_op("derain::channel_norm_c", mutates_args=(), device_types="cpu")
def _channel_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    return _compute_norm(x, weight, bias, eps)


@torch.library.custom_op("derain::channel_norm_c_backward", mutates_args=(), device_types="cpu")
def _channel_norm_backward(
    d_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias."""
    x, d_out = channels_last(x), channels_last(d_out)
    n, c, h, w = x.shape
    dx, parts = torch.empty_like(x), torch.get_num_threads()
    sums = weight.new_zeros(parts, 2, c)
    tensors = (x, weight, bias, d_out, dx, sums)
    _call("channel_norm_backward", tensors, (n * h * w, c, parts), eps)
    d_weight, d_bias = sums.sum(0)
    return dx, d_weight.clone(), d_bias.clone()


@_channel_norm.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


@_channel_norm_backward.register_fake
def _(
    d_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    dx = torch.empty_like(x, memory_format=torch.channels_last)
    return dx, torch.empty_like(weight), torch.empty_like(weight)


def _norm_gradients(
    d_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float
) -> Gradients:
    dx, d_weight, d_bias = _channel_norm_backward(d_out, x, weight, bias, eps)
    return dx, d_weight, None if bias is None else d_bias, None


register_gradients(_channel_norm, _norm_gradients, eager_channel_norm)


def channel_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float = 1e-5) -> Tensor:
    """Normalise each pixel's channels, with float32 weights; see `channel_norm.py`."""
    weight, bias = weight.float().contiguous(), None if bias is None else bias.float().contiguous()
    compute = _channel_norm if needs_operator() else _compute_norm
    return compute(x, weight, bias, eps)
