"""Step of a convolutional LSTM in C, without gradients, for float32 and bfloat16 on a CPU.

In bfloat16 it is one pass. In float32 it is a 3x3 convolution, `conv3x3.py`, and `update`.

Importing this module compiles it (see `c_compiler.py`).
"""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor

from basicsr.archs.ops.c_compiler import compiled_library
from basicsr.archs.ops.custom_op import C_TYPES, channels_last, empty_channels_last

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


def update(gates: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the new h and c, float32, from the gates, N x 4C x H x W, and the last c."""
    gates, c = channels_last(gates), None if c is None else channels_last(c)
    next_h, next_c = (empty_channels_last(gates, gates.shape[1] // 4) for _ in range(2))
    assert c is None or c.shape == next_c.shape
    job = _job(c=c, next_h=next_h, next_c=next_c)
    _library().update(ctypes.byref(job), ctypes.c_void_p(gates.data_ptr()))
    return next_h, next_c


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
