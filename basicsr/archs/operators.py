"""What operators of `torch.library` share, those of Triton's kernels and those of C."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def empty_pixels(like: Tensor, channels: int) -> Tensor:
    """A channels-last tensor of the images' size, with that many channels."""
    n, _, h, w = like.shape
    return like.new_empty((n, h, w, channels)).permute(0, 3, 1, 2)


Gradients = tuple[Tensor | None, ...]


def differentiable(
    operator: torch.library.CustomOpDef,
    kernel: Callable[..., Gradients],
    eager: Callable[..., Tensor],
) -> None:
    """Give `operator` gradients: those of `kernel`, or of `eager` where they need gradients too.

    `kernel` takes the result's gradient and the operator's arguments and returns gradients of all
    of them; `eager` computes what the operator does.
    """

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*(x for x in inputs if isinstance(x, Tensor)))
        ctx.others = [None if isinstance(x, Tensor) else (x,) for x in inputs]

    def backward(ctx: Any, grad: Tensor) -> Gradients:
        saved = iter(ctx.saved_tensors)
        inputs = [next(saved) if other is None else other[0] for other in ctx.others]
        if not torch.is_grad_enabled():
            return kernel(grad, *inputs)
        wanted = [x for x, needed in zip(inputs, ctx.needs_input_grad, strict=True) if needed]
        gradients = iter(torch.autograd.grad(eager(*inputs), wanted, grad, create_graph=True))
        return tuple(next(gradients) if needed else None for needed in ctx.needs_input_grad)

    operator.register_autograd(backward, setup_context=setup)
