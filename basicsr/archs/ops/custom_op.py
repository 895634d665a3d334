"""Helpers for operators of `torch.library`, as the Triton kernels and the C versions are.

Operators read and write channels-last tensors. Their backward passes recompute what they need from
the inputs, and have no gradients of their own: second derivatives are those of the definition in
PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

C_TYPES = {torch.float32: 0, torch.bfloat16: 1}
"""Types that the C versions compute in, numbered as in vectors.h."""


def needs_operator() -> bool:
    """Return whether C is to be called as an operator: for gradients, or for PyTorch's compiler.

    Otherwise it is called directly, as the first call of a custom operator imports that compiler,
    which takes a second.
    """
    return torch.compiler.is_compiling() or torch.is_grad_enabled()


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def empty_channels_last(like: Tensor, channels: int) -> Tensor:
    """Return an empty channels-last tensor of the images' size, with that many channels."""
    shape = (like.shape[0], channels, *like.shape[2:])
    layout = torch.channels_last
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)


Gradients = tuple[Tensor | None, ...]


def register_gradients(
    operator: torch.library.CustomOpDef,
    backward: Callable[..., Gradients],
    eager: Callable[..., Tensor | Sequence[Tensor]],
) -> None:
    """Register the gradients of `operator`.

    Args:
        operator: returns a tensor, or a list of tensors.
        backward: takes the gradient of the result, or of each tensor in the list, and the arguments
            of the operator; returns the gradients of all of them.
        eager: definition of the operator in PyTorch, used where gradients are differentiated.
    """

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor | list[Tensor]) -> None:
        ctx.save_for_backward(*(x for x in inputs if isinstance(x, Tensor)))
        ctx.others = [None if isinstance(x, Tensor) else (x,) for x in inputs]

    def backward_of_operator(ctx: Any, grad: Tensor | list[Tensor]) -> Gradients:
        saved = iter(ctx.saved_tensors)
        inputs = [next(saved) if other is None else other[0] for other in ctx.others]
        if not torch.is_grad_enabled():
            return backward(grad, *inputs)
        wanted = [x for x, needed in zip(inputs, ctx.needs_input_grad, strict=True) if needed]
        gradients = iter(torch.autograd.grad(eager(*inputs), wanted, grad, create_graph=True))
        return tuple(next(gradients) if needed else None for needed in ctx.needs_input_grad)

    operator.register_autograd(backward_of_operator, setup_context=setup)
