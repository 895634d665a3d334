"""The passes of a transformer block in C, without gradients, for float32 and bfloat16 on a CPU.

Importing this module compiles it (see `c_compiler.py`). All take images N x C x H x W of a type in
`SUFFIXES`, which is the results' type too, and parameters of any floating type. A transformer block
normalises the images (`norm`; without a bias it does not centre), and applies a 1x1 (`point`) and a
depthwise 3x3 convolution (`depth`).
"""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor

from basicsr.archs.ops.c_compiler import compiled_library
from basicsr.archs.ops.custom_op import channels_last
from basicsr.archs.ops.gram import Gram

Parameters = tuple[Tensor, Tensor | None]  # weight and bias
SUFFIXES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
CACHE = 400 * 1024  # bytes of a core's cache for the hidden channels of four rows
BAND = 16  # least rows of a band; the rows around a band are computed twice
NARROW = 64  # columns of a tile that are preferred to bands; two beside it are computed twice


def lanes_of(library: ctypes.CDLL) -> int:
    """Return the channels of a vector."""
    return ctypes.c_int.in_dll(library, "lanes").value


_LIBRARY = compiled_library("transformer_block.c")
AVAILABLE = _LIBRARY is not None
LANES = lanes_of(_LIBRARY) if _LIBRARY is not None else 0


class _Job(ctypes.Structure):
    """Job of transformer_block.c."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "out", "norm_weight", "norm_bias")),
        *((name, ctypes.c_void_p) for name in ("point_weight", "point_bias")),
        *((name, ctypes.c_void_p) for name in ("depth_weight", "depth_bias")),
        *((name, ctypes.c_void_p) for name in ("last_weight", "last_bias", "sums")),
        *((name, ctypes.c_long) for name in ("images", "height", "width", "channels")),
        *((name, ctypes.c_long) for name in ("top", "bottom", "hidden", "heads")),
        *((name, ctypes.c_long) for name in ("bands", "tiles", "last_weights")),
        ("epsilon", ctypes.c_float),
    ]


def gram_sums(
    x: Tensor, norm: Parameters, point: Parameters, depth: Parameters, heads: int, rows: slice
) -> Gram:
    """Return `ops.gram_sums` of queries and keys, over some rows of their images.

    Args:
        x: images.
        norm: normalisation.
        point: 1x1 convolution from C to 2C channels, queries and then keys.
        depth: depthwise 3x3 convolution.
        heads: number of heads.
        rows: rows to sum over.
    """
    hidden = point[0].shape[0] // 2
    of_head = hidden // heads
    padded = _padded(of_head)
    job = _job(x, hidden, 2, rows)
    sums = torch.zeros(len(x), job.bands * job.tiles, hidden * padded + 2 * _padded(hidden))
    job.sums, job.heads = sums.data_ptr(), heads
    _call("gram_sums", job, x, norm=norm, point=point, depth=depth)
    products, *squares = sums.sum(1).split([hidden * padded, *[_padded(hidden)] * 2], dim=1)
    products = products.view(len(x), heads, of_head, padded)[..., :of_head]
    return Gram(products, *(each[:, :hidden].unflatten(1, (heads, of_head)) for each in squares))


def add_values(
    x: Tensor, norm: Parameters, point: Parameters, depth: Parameters, last: Parameters
) -> Tensor:
    """Return x + last(values), where `last` is a 1x1 convolution for each image, N x C x C."""
    return _add("add_values", x, 1, norm=norm, point=point, depth=depth, last=last)


def add_gates(
    x: Tensor, norm: Parameters, point: Parameters, depth: Parameters, last: Parameters
) -> Tensor:
    """Return x + last(gelu(gates) * values), where gates are the first half of the channels."""
    return _add("add_gates", x, 2, norm=norm, point=point, depth=depth, last=last)


def _add(name: str, x: Tensor, parts: int, **parameters: Parameters) -> Tensor:
    x = channels_last(x)
    out = torch.empty_like(x)
    hidden = len(parameters["point"][0]) // parts
    job = _job(x, hidden, parts, slice(0, x.shape[2]))
    job.out, job.last_weights = (
        out.data_ptr(),
        parameters["last"][0].numel() // (x.shape[1] * hidden),
    )
    _call(name, job, x, **parameters)
    return out


def _padded(channels: int) -> int:
    """Return the number of channels in whole vectors."""
    return math.ceil(channels / LANES) * LANES


def _job(x: Tensor, hidden: int, parts: int, rows: slice) -> _Job:
    """Return the job's sizes: tiles that fit the cache, and enough of them for all threads."""
    n, c, h, w = x.shape
    threads = torch.get_num_threads()
    wanted = math.ceil(4 * threads / max(1, n)) if threads > 1 else 1  # tiles of an image
    column = 4 * x.dtype.itemsize * parts * _padded(hidden)
    tiles = max(1, math.ceil(w / max(BAND, CACHE // column)), min(wanted, w // NARROW))
    bands = max(1, min((rows.stop - rows.start) // BAND, math.ceil(wanted / tiles)))
    if bands == 1 and w >= BAND * threads:
        tiles = math.ceil(tiles / threads) * threads
    return _Job(
        **{"images": n, "height": h, "width": w, "channels": c, "hidden": hidden},
        **{"top": rows.start, "bottom": rows.stop, "tiles": tiles, "bands": bands},
        heads=1,
        epsilon=1e-5,
    )


def _call(name: str, job: _Job, x: Tensor, **parameters: Parameters) -> None:
    assert x.shape[1] == parameters["point"][0].shape[1]
    x = channels_last(x)
    job.x = x.data_ptr()
    kept = []  # C reads these tensors
    for part, (weight, bias) in parameters.items():
        for key, tensor in ((f"{part}_weight", weight), (f"{part}_bias", bias)):
            if tensor is not None:
                kept.append(tensor.float().contiguous())
                setattr(job, key, kept[-1].data_ptr())
    if getattr(_LIBRARY, f"{name}_{SUFFIXES[x.dtype]}")(ctypes.byref(job)):
        raise MemoryError(f"{name}: cannot allocate memory for {x.shape[3]} columns")
