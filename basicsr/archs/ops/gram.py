"""Gram matrices of transposed attention: sums over pixels of products of channels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Gram(NamedTuple):
    """Sums over pixels. Those of the strips of an image add up to those of the image."""

    products: Tensor  # N x heads x C/heads x C/heads: channels of q by channels of k
    q_squares: Tensor  # N x heads x C/heads
    k_squares: Tensor  # N x heads x C/heads


def gram_sums(q: Tensor, k: Tensor, heads: int) -> Gram:
    """Sum products and squares of the channels of `q` and `k` over the pixels, by heads.

    The sums are float32, or float64 for float64 tensors.

    Args:
        q: N x C x H x W.
        k: like `q`.
        heads: head h has the channels [h C/heads, (h+1) C/heads).
    """
    precise = torch.promote_types(q.dtype, torch.float32)
    with autocast_off(q.device.type):
        q, k = (x.permute(0, 2, 3, 1).flatten(1, 2).to(precise) for x in (q, k))
        if torch.is_grad_enabled():
            return Gram(*_GramSums.apply(q, k, heads))
        return Gram(*_sums(q, k, heads))  # operations that other runtimes can convert


class _GramSums(torch.autograd.Function):
    """The sums of N x HW x C tensors, with gradients that are contiguous by pixels.

    Those of matmul would be contiguous by channels, and slow to use in convolutions.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(q, k)
        ctx.heads = heads
        return _sums(q, k, heads)

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


def _sums(q: Tensor, k: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    products = [a.transpose(1, 2) @ b for a, b in _by_head(q, k, heads)]
    q_squares, k_squares = (x.square().sum(1).unflatten(-1, (heads, -1)) for x in (q, k))
    return torch.stack(products, dim=1), q_squares, k_squares


def _by_head(q: Tensor, k: Tensor, heads: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(q.chunk(heads, dim=-1), k.chunk(heads, dim=-1), strict=True)


def sum_grams(grams: Iterable[Gram]) -> Gram:
    """Add the sums of all strips of an image."""
    return Gram(*(sum(sums) for sums in zip(*grams, strict=True)))


def cosine_similarity(gram: Gram) -> Tensor:
    """Return the cosine of each channel of q and each of k: N x heads x C/heads x C/heads.

    It is 0 for channels that are 0 everywhere.
    """
    q_norms, k_norms = (
        squares.clamp_min(1e-24).sqrt() for squares in (gram.q_squares, gram.k_squares)
    )
    return gram.products / (q_norms[..., :, None] * k_norms[..., None, :])


def autocast_off(device_type: str) -> AbstractContextManager:
    """Disable autocast. Unlike torch.autocast, this knows the meta device, used to count costs."""
    return nullcontext() if device_type == "meta" else torch.autocast(device_type, enabled=False)
