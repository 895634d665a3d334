"""Gate of the feed-forward part: gelu(gate) * value, after a depthwise convolution."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from basicsr.archs.ops.dwconv import dwconv


def gated_dwconv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return gelu(gate) * value, N x C/2 x H x W, for the halves of dwconv(x).

    The GELU is the exact one.
    """
    gate, value = dwconv(x, weight, bias).chunk(2, dim=1)
    return F.gelu(gate) * value


class _GELUGate(torch.autograd.Function):
    """gelu(gate) * value, which recomputes gelu(gate) for the gradient instead of saving it."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(gate, value)
        return F.gelu(gate).mul_(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, value = ctx.saved_tensors
        return torch.ops.aten.gelu_backward(grad * value, gate), F.gelu(gate) * grad


def gelu_gate(gate: Tensor, value: Tensor) -> Tensor:
    """Return gelu(gate) * value."""
    return _GELUGate.apply(gate, value)
