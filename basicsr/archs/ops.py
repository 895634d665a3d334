"""The operations of the transformer blocks and recurrent units, apart from the modules.

All take N x C x H x W tensors of any floating type, quickest in `torch.channels_last`, and give
what can be differentiated. Statistics are float32 at least, whatever the type of `x` and under
autocast too. On CUDA with DERAIN_FAST_GPU=1 in the environment, where Triton can be imported, the
function of the same name and arguments in `triton_ops` computes an operation (but for float64,
which has no kernels). On a CPU with a C compiler, `cpu_ops` computes the float32 feed-forward gate.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

P = ParamSpec("P")
R = TypeVar("R")


def _with_kernels(eager: Callable[P, R]) -> Callable[P, R]:
    """`eager`, or its twin in `triton_ops` where the first argument is a tensor that it takes."""

    @functools.wraps(eager)
    def dispatched(*args: P.args, **kwargs: P.kwargs) -> R:
        first = args[0]
        assert isinstance(first, Tensor)
        if has_kernels(first):
            from basicsr.archs import triton_ops  # torch.compile traces this, and no import_module

            return getattr(triton_ops, eager.__name__)(*args, **kwargs)
        return eager(*args, **kwargs)

    return dispatched


HAS_TRITON = importlib.util.find_spec("triton") is not None
FAST_GPU = os.environ.get("DERAIN_FAST_GPU") == "1"  # until kernels and graphs have run on one


def has_kernels(x: Tensor) -> bool:
    return x.is_cuda and x.dtype != torch.float64 and HAS_TRITON and FAST_GPU


def has_c(x: Tensor) -> bool:
    """Whether `cpu_ops` can compute what follows from `x`.

    Fake tensors, on which costs are counted, are left to PyTorch's own operations.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or type(x) is not Tensor:
        return False
    if torch.is_autocast_enabled("cpu"):
        return False
    from basicsr.archs import cpu_ops  # late: it compiles

    return cpu_ops.AVAILABLE


def autocast_off(device_type: str) -> AbstractContextManager:
    """torch's own context for that knows no meta device, on which costs are counted."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


class Gram(NamedTuple):
    """Sums over pixels; those of several strips of an image add up to those of the image."""

    products: Tensor  # N x heads x C/heads x C/heads: q's channels by k's
    q_squares: Tensor  # N x heads x C/heads
    k_squares: Tensor  # N x heads x C/heads


@_with_kernels
def channel_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float = 1e-5) -> Tensor:
    """Normalise each pixel's C channels; the result has the shape, type and format of `x`.

    (x - mean) / sqrt(variance + eps) * weight + bias; without `bias` it is
    x / sqrt(variance + eps) * weight, of the same variance, but `x` is not centred. `weight` and
    `bias` have C numbers, in whose type everything is computed, but in float32 at least.
    """
    precise = torch.promote_types(weight.dtype, torch.float32)
    weight, bias = weight.to(precise), None if bias is None else bias.to(precise)
    pixels = x.permute(0, 2, 3, 1).to(precise)
    if bias is None:
        variance = pixels.var(dim=-1, keepdim=True, unbiased=False)
        pixels = pixels * torch.rsqrt(variance + eps) * weight
    else:
        pixels = F.layer_norm(pixels, weight.shape, weight, bias, eps)
    return pixels.permute(0, 3, 1, 2).to(x.dtype)


def parts(x: Tensor, count: int) -> tuple[Tensor, ...]:
    """The `count` equal parts of `x` along the channels, on a CPU without gaps in memory.

    What is computed on short rows with gaps between them is several times slower there.
    """
    chunks = x.chunk(count, dim=1)
    if x.is_cuda:
        return chunks
    return tuple(part.contiguous(memory_format=torch.channels_last) for part in chunks)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1x1 convolution; in 16 bits on a GPU as one matrix product over the pixels.

    In float32 convolutions are quicker: those of oneDNN than MKL's products on AMD, and those of
    cuDNN are TF32 where products are not.
    """
    if not x.is_cuda or x.dtype == torch.float32:
        return F.conv2d(x, weight.view(*weight.shape[:2], 1, 1), bias)
    return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


ALIGNMENT = 8  # numbers of 16 bits; other widths are several times slower on a GPU, and none for C


def aligned_halves(conv: nn.Conv2d) -> tuple[Tensor, Tensor | None]:
    """Weight and bias, each half of the output channels filled with zeros to the alignment."""

    def aligned(parameter: Tensor) -> Tensor:
        halves = parameter.unflatten(0, (2, -1))
        missing = -halves.shape[1] % ALIGNMENT
        return F.pad(halves, [0, 0] * (halves.dim() - 2) + [0, missing]).flatten(0, 1)

    return aligned(conv.weight), None if conv.bias is None else aligned(conv.bias)


def hidden_projection(x: Tensor, point: nn.Conv2d) -> Tensor:
    """point(x), where `x` may have channels of zeros beyond those that `point` takes."""
    weight = F.pad(point.weight.flatten(1), (0, x.shape[1] - point.in_channels))
    return pointwise(x, weight, point.bias)


def projections(
    x: Tensor, point: nn.Conv2d, depth: nn.Conv2d, first: int, last: int, count: int
) -> tuple[Tensor, ...]:
    """Parts `first` to `last` - 1 of the `count` equal parts of depth(point(x)) along the channels.

    A CPU computes each part by itself: one that is cut out has gaps in memory. A GPU is quicker
    with one large product.
    """
    width, wanted = point.out_channels // count, last - first
    inner = [wanted * width] if x.is_cuda else [width] * wanted
    widths = [first * width, *inner, (count - last) * width]
    tensors = (point.weight, point.bias, depth.weight, depth.bias)
    split = [[None] * len(widths) if each is None else each.split(widths) for each in tensors]
    computed = tuple(
        dwconv(pointwise(x, w1, b1), w3, b3)
        for w1, b1, w3, b3 in list(zip(*split, strict=True))[1:-1]
    )
    return computed[0].chunk(wanted, dim=1) if x.is_cuda else computed


def gated_projection(x: Tensor, point: nn.Conv2d, depth: nn.Conv2d) -> Tensor:
    """gelu(gate) * value, the halves of depth(point(x)): N x hidden x H x W.

    On a GPU and in C, channels of zeros fill hidden up to a multiple of ALIGNMENT.
    """
    if not x.is_cuda and not has_c(x):
        return gelu_gate(*projections(x, point, depth, 0, 2, 2))
    hidden, weights = pointwise(x, *aligned_halves(point)), aligned_halves(depth)
    if x.is_cuda:
        return gated_dwconv(hidden, *weights)
    from basicsr.archs import cpu_ops

    return cpu_ops.gated_dwconv(hidden, *weights)


class _GELUGate(torch.autograd.Function):
    """Computes gelu(gate) again for the gradient, instead of keeping it."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(gate, value)
        return F.gelu(gate).mul_(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, value = ctx.saved_tensors
        return torch.ops.aten.gelu_backward(grad * value, gate), F.gelu(gate) * grad


def gelu_gate(gate: Tensor, value: Tensor) -> Tensor:
    return _GELUGate.apply(gate, value)


@_with_kernels
def dwconv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A depthwise 3x3 convolution with zeros around the image.

    `weight` is C x 1 x 3 x 3, `bias` C numbers, rounded to the type of `x`, which is the result's;
    sums are kept in float32.
    """
    weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
    return F.conv2d(x, weight, bias, padding=1, groups=x.shape[1])


@_with_kernels
def gated_dwconv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """gelu(gate) * value, N x C/2 x H x W: the halves of dwconv(x). The GELU is the exact one."""
    gate, value = dwconv(x, weight, bias).chunk(2, dim=1)
    return F.gelu(gate) * value


class _GramSums(torch.autograd.Function):
    """Keeps the pixels together in memory in the gradients too, which matmul's own would not."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(q, k)
        ctx.heads = heads
        products = [a.mT @ b for a, b in _by_head(q, k, heads)]
        squares = (x.square().sum(1).unflatten(-1, (heads, -1)) for x in (q, k))
        return (torch.stack(products, dim=1), *squares)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        products, q_squares, k_squares = grads
        q, k = ctx.saved_tensors
        pairs = list(zip(products.unbind(1), _by_head(q, k, ctx.heads), strict=True))
        grad_q = torch.cat([b @ grad.mT for grad, (_, b) in pairs], dim=-1)
        grad_k = torch.cat([a @ grad for grad, (a, _) in pairs], dim=-1)
        return (
            torch.addcmul(grad_q, q, q_squares.flatten(1)[:, None], value=2),
            torch.addcmul(grad_k, k, k_squares.flatten(1)[:, None], value=2),
            None,
        )


def _by_head(q: Tensor, k: Tensor, heads: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(q.chunk(heads, dim=-1), k.chunk(heads, dim=-1), strict=True)


@_with_kernels
def gram_sums(q: Tensor, k: Tensor, heads: int) -> Gram:
    """Products of q's and k's channels and their squares, summed over the pixels, by heads.

    Both are N x C x H x W of one type, head h having the channels [h C/heads, (h+1) C/heads). The
    sums are float32, or float64 for float64 tensors.
    """
    precise = torch.promote_types(q.dtype, torch.float32)
    with autocast_off(q.device.type):
        pixels = (x.permute(0, 2, 3, 1).flatten(1, 2).to(precise) for x in (q, k))
        return Gram(*_GramSums.apply(*pixels, heads))


def total(grams: Iterable[Gram]) -> Gram:
    """Of an image, from those of its strips."""
    return Gram(*(sum(sums) for sums in zip(*grams, strict=True)))


def cosines(gram: Gram) -> Tensor:
    """The cosine similarity of each of q's channels to each of k's: N x heads x C/heads x C/heads.

    A channel of zeros is similar to none.
    """
    q_norms, k_norms = (
        squares.clamp_min(1e-24).sqrt() for squares in (gram.q_squares, gram.k_squares)
    )
    return gram.products / (q_norms[..., :, None] * k_norms[..., None, :])
