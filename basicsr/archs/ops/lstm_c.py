"""Convolutional LSTM in C, for float32 and bfloat16 on a CPU.

`lstm` computes a whole step in bfloat16, without gradients. `lstm_update` computes the new state
from the gates, in float32 or bfloat16, with gradients.

Importing this module compiles it (see `c_compiler.py`).
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
from basicsr.archs.ops.lstm import lstm_update as eager_lstm_update

CACHE = 256 * 1024  # bytes of a core's cache for the rows of inputs and gates
BAND = 16  # least rows of a band; the rows around a band are read twice

_LIBRARY = compiled_library("lstm.c")
AVAILABLE = _LIBRARY is not None


class _Job(ctypes.Structure):
    """Job of lstm.c."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "h", "c", "weight", "bias")),
        *((name, ctypes.c_void_p) for name in ("next_h", "next_c")),
        *((name, ctypes.c_long) for name in ("x_type", "h_type", "c_type", "next_type")),
        *((name, ctypes.c_long) for name in ("images", "height", "width", "channels")),
        *((name, ctypes.c_long) for name in ("bands", "tiles")),
    ]


def lstm(
    x: Tensor, h: Tensor | None, c: Tensor | None, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the new h and c of a `ConvLSTMCell`, in bfloat16.

    Args:
        x: N x C x H x W, float32 or bfloat16.
        h: the last h, like `x`, or None for zeros.
        c: the last c, or None.
        weight: of the gates, 4C x 2C x 3 x 3; without h, 4C x C x 3 x 3.
        bias: of the gates, 4C, or None.
    """
    assert all(each is None or each.shape == x.shape for each in (h, c))
    x = channels_last(x)
    h, c = (None if each is None else channels_last(each) for each in (h, c))
    weight = weight.float().permute(0, 2, 3, 1).contiguous()
    bias = None if bias is None else bias.float().contiguous()
    next_h, next_c = (torch.empty_like(x, dtype=torch.bfloat16) for _ in range(2))
    job = _job(x=x, h=h, c=c, weight=weight, bias=bias, next_h=next_h, next_c=next_c)
    job.bands, job.tiles = _split(x)
    if _library().lstm(ctypes.byref(job)):
        raise MemoryError(f"lstm: cannot allocate memory for {job.width} columns")
    return next_h, next_c


class _Gradients(ctypes.Structure):
    """Gradients of lstm.c."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("gates", "d_h", "d_c", "d_gates", "d_last")]


def _update(gates: Tensor, c: Tensor | None) -> list[Tensor]:
    gates, c = channels_last(gates), None if c is None else channels_last(c)
    assert gates.shape[1] % 4 == 0
    next_h, next_c = (empty_channels_last(gates, gates.shape[1] // 4) for _ in range(2))
    assert c is None or (c.shape, c.dtype) == (next_c.shape, next_c.dtype)
    job = _job(c=c, next_h=next_h, next_c=next_c)
    _library().update(ctypes.byref(job), ctypes.c_void_p(gates.data_ptr()))
    return [next_h, next_c]


@torch.library.custom_op("derain::lstm_update_c", mutates_args=(), device_types="cpu")
def _update_operator(gates: Tensor, c: Tensor | None) -> list[Tensor]:
    return _update(gates, c)


@torch.library.custom_op("derain::lstm_update_c_backward", mutates_args=(), device_types="cpu")
def _update_backward(d_h: Tensor, d_c: Tensor, gates: Tensor, c: Tensor | None) -> list[Tensor]:
    """Return the gradients of the gates and, if there is one, of the last c."""
    d_h, d_c, gates = channels_last(d_h), channels_last(d_c), channels_last(gates)
    c = None if c is None else channels_last(c)
    assert all(each.dtype == gates.dtype for each in (d_h, d_c))
    assert gates.shape == (len(d_h), 4 * d_h.shape[1], *d_h.shape[2:])
    gradients = [torch.empty_like(each) for each in (gates, c) if each is not None]
    tensors = [gates, d_h, d_c, *gradients]
    addresses = _Gradients(*(each.data_ptr() for each in tensors))
    job = _job(c=c, next_h=d_h)
    _library().update_backward(ctypes.byref(job), ctypes.byref(addresses))
    return gradients


@_update_operator.register_fake
def _(gates: Tensor, c: Tensor | None) -> list[Tensor]:
    return [empty_channels_last(gates, gates.shape[1] // 4) for _ in range(2)]


@_update_backward.register_fake
def _(d_h: Tensor, d_c: Tensor, gates: Tensor, c: Tensor | None) -> list[Tensor]:
    return [empty_channels_last(each, each.shape[1]) for each in (gates, c) if each is not None]


def _update_gradients(d_state: Sequence[Tensor], gates: Tensor, c: Tensor | None) -> Gradients:
    d_gates, *d_last = _update_backward(*d_state, gates, c)
    return d_gates, *(d_last or [None])


register_gradients(_update_operator, _update_gradients, eager_lstm_update)


def lstm_update(gates: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the new h and c, from gates and last c of one type in C_TYPES on a CPU."""
    h, c = (_update_operator if needs_operator() else _update)(gates, c)
    return h, c


def _library() -> ctypes.CDLL:
    assert _LIBRARY is not None
    return _LIBRARY


def _job(**tensors: Tensor | None) -> _Job:
    """Return a job with the sizes of `next_h`, for the tensors of the given names."""
    next_h = tensors["next_h"]
    assert next_h is not None
    n, c, h, w = next_h.shape
    job = _Job(images=n, channels=c, height=h, width=w, next_type=C_TYPES[next_h.dtype])
    for name, tensor in tensors.items():
        if tensor is not None:
            setattr(job, name, tensor.data_ptr())
            if name in ("x", "h", "c"):
                setattr(job, f"{name}_type", C_TYPES[tensor.dtype])
    return job


def _split(x: Tensor) -> tuple[int, int]:
    """Return the numbers of bands, which keep all threads busy, and tiles, which fit the cache."""
    n, c, h, w = x.shape
    threads = torch.get_num_threads()
    column = 4 * 2 * 2 * c + 2 * 4 * 4 * c  # four rows of x and h, two of gates
    tiles = max(1, math.ceil(w / max(BAND, CACHE // column)))
    bands = min(h // BAND, math.ceil(4 * threads / max(1, n * tiles))) if threads > 1 else 1
    return max(1, bands), tiles
