"""3x3 convolution in C by Winograd's algorithm, with gradients, for float32 on a CPU.

Importing this module compiles it (see `c_compiler.py`). `AVAILABLE` is false without a compiler;
PyTorch's own operations are used then.
"""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor

from basicsr.archs.ops.c_compiler import compiled_library
from basicsr.archs.ops.conv3x3 import conv3x3 as eager_conv3x3
from basicsr.archs.ops.custom_op import (
    Gradients,
    channels_last,
    empty_channels_last,
    needs_operator,
    register_gradients,
)

TILE, BLOCK, TAPS, POINTS = 4, 48, 9, 36  # of conv3x3.c
CACHE = 2048 * 1024  # bytes of a core's cache for the gradients of weights
CHUNKS = 16  # tasks at least; sums over a part of the pixels each are more precise
LEAST_CHANNELS = 16  # with fewer, or with fewer tiles, a direct convolution is as fast
LEAST_TILES = 16

_LIBRARY = compiled_library("conv3x3.c")
AVAILABLE = _LIBRARY is not None


def is_faster(x: Tensor, weight: Tensor) -> bool:
    """Return whether there is a C version for these sizes, and whether it is faster."""
    if x.dim() != 4 or weight.shape[1:] != (x.shape[1], 3, 3):
        return False
    return _tiles(x) >= LEAST_TILES and min(weight.shape[:2]) >= LEAST_CHANNELS


def _tiles(x: Tensor) -> int:
    n, _, h, w = x.shape
    return n * math.ceil(h / TILE) * math.ceil(w / TILE)


class _Job(ctypes.Structure):
    """Job of conv3x3.c."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "weight", "bias", "out", "d_weights")),
        *((name, ctypes.c_long) for name in ("images", "height", "width", "inputs", "outputs")),
        *((name, ctypes.c_long) for name in ("flipped", "parts", "chunks")),
    ]


def _run(name: str, outputs: int, numbers: dict[str, int], **tensors: Tensor | None) -> None:
    """Call the function `name` of conv3x3.c with a job of these tensors, among them x."""
    x = tensors["x"]
    assert x is not None
    n, c, h, w = x.shape
    addresses = {key: each.data_ptr() for key, each in tensors.items() if each is not None}
    sizes = {"images": n, "height": h, "width": w, "inputs": c, "outputs": outputs}
    if getattr(_LIBRARY, name)(ctypes.byref(_Job(**addresses, **sizes, **numbers))):
        raise MemoryError(f"{name}: cannot allocate memory for {c} channels")


def _group() -> int:
    """Return the number of output channels that are computed together."""
    assert _LIBRARY is not None
    return _LIBRARY.conv3x3_group()


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, flipped: bool = False) -> Tensor:
    """Return the convolution; if `flipped`, the one that takes a result's gradient to that of x."""
    x, weight = channels_last(x), weight.contiguous()
    bias = None if bias is None else bias.contiguous()
    outputs = weight.shape[1 if flipped else 0]
    assert weight.numel() == x.shape[1] * outputs * TAPS
    assert bias is None or bias.shape == (outputs,)
    out, threads = empty_channels_last(x, outputs), torch.get_num_threads()
    blocks = max(1, math.ceil(_tiles(x) / BLOCK))
    groups = math.ceil(outputs / _group())
    parts = min(groups, math.ceil(4 * threads / blocks)) if threads > 1 else 1
    numbers = {"flipped": flipped, "parts": parts}
    _run("conv3x3", outputs, numbers, x=x, weight=weight, bias=bias, out=out)
    return out


def _weight_gradient(d_out: Tensor, x: Tensor) -> Tensor:
    inputs, outputs = x.shape[1], d_out.shape[1]
    bytes_of_group = POINTS * inputs * _group() * 4
    parts = math.ceil(outputs / _group() / max(1, CACHE // bytes_of_group))
    chunks = max(1, min(_tiles(x) // BLOCK, math.ceil(CHUNKS / parts)))
    d_weights = x.new_empty(chunks, outputs, inputs, 3, 3)
    numbers = {"parts": parts, "chunks": chunks}
    _run("conv3x3_weight_gradient", outputs, numbers, x=x, out=d_out, d_weights=d_weights)
    return d_weights.sum(0) if chunks > 1 else d_weights.squeeze(0)


@torch.library.custom_op("derain::conv3x3_c", mutates_args=(), device_types="cpu")
def _conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _convolve(x, weight, bias)


@torch.library.custom_op("derain::conv3x3_c_backward", mutates_args=(), device_types="cpu")
def _conv3x3_backward(d_out: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias."""
    d_out, x = channels_last(d_out), channels_last(x)
    dx = _convolve(d_out, weight, None, flipped=True)
    return dx, _weight_gradient(d_out, x), d_out.sum((0, 2, 3))


@_conv3x3.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return empty_channels_last(x, weight.shape[0])


@_conv3x3_backward.register_fake
def _(d_out: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    dx = empty_channels_last(x, x.shape[1])
    return dx, weight.new_empty(weight.shape), weight.new_empty(weight.shape[0])


def _gradients(d_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Gradients:
    dx, d_weight, d_bias = _conv3x3_backward(d_out, x, weight)
    return dx, d_weight, None if bias is None else d_bias


register_gradients(_conv3x3, _gradients, eager_conv3x3)


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the 3x3 convolution of float32 tensors on a CPU."""
    return (_conv3x3 if needs_operator() else _convolve)(x, weight, bias)
