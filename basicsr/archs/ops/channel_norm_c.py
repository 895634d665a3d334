"""Channel normalisation in C, with gradients, for float32 and bfloat16 on a CPU.

`AVAILABLE` is false without a compiler; PyTorch's own operations are used then.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from basicsr.archs.ops.c_compiler import compiled_library
from basicsr.archs.ops.channel_norm import channel_norm as eager_channel_norm
from basicsr.archs.ops.custom_op import Gradients, channels_last, register_gradients

TYPES = {torch.float32: 0, torch.bfloat16: 1}  # of vectors.h

_LIBRARY = compiled_library("channel_norm.c")
AVAILABLE = _LIBRARY is not None


def _call(name: str, *arguments: Tensor | float | None, dtype: torch.dtype) -> None:
    converted = [_converted(argument) for argument in arguments]
    getattr(_LIBRARY, name)(*converted, ctypes.c_long(TYPES[dtype]))


def _converted(argument: Tensor | float | None) -> object:
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_float(argument) if isinstance(argument, float) else _long(argument)


def _long(argument: int | None) -> object:
    return None if argument is None else ctypes.c_long(argument)


def _compute_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    x = channels_last(x)
    n, c, h, w = x.shape
    assert weight.numel() == c
    out = torch.empty_like(x)
    _call("channel_norm", x, weight, bias, out, n * h * w, c, eps, dtype=x.dtype)
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
    _call(
        "channel_norm_backward",
        *(x, weight, bias, d_out, dx, sums, n * h * w, c, parts, eps),
        dtype=x.dtype,
    )
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


def _direct() -> bool:
    """Return whether to call C without an operator.

    PyTorch imports its compiler when it first calls a custom operator, which takes a second.
    """
    return not (torch.compiler.is_compiling() or torch.is_grad_enabled())


def channel_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float = 1e-5) -> Tensor:
    """Normalise each pixel's channels, with float32 weights; see `channel_norm.py`."""
    weight, bias = weight.float().contiguous(), None if bias is None else bias.float().contiguous()
    compute = _compute_norm if _direct() else _channel_norm
    return compute(x, weight, bias, eps)
