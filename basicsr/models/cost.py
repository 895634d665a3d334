"""What a network costs: parameters, multiply-accumulates, memory of a training step.

All of it is read off a run on fake tensors, which have shapes but no data: no size is too large.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode


class Cost(NamedTuple):
    """Of one forward pass: its multiply-accumulates, and the bytes kept for the backward pass."""

    parameters: int
    macs: int
    activations: int


def network_cost(
    network: nn.Module, shape: tuple[int, int, int, int], precision: str = "fp32"
) -> Cost:
    """The cost of `network` on a batch of `shape`, whose sides its `size_multiple` divides."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor  # the reference keeps the key unique
        return tensor

    twin = copy.deepcopy(network).cpu().train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        counter = FlopCounterMode(display=False)
        with (
            counter,
            saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
        ):
            twin(torch.rand(shape), all_stages=True)
    for parameter in twin.parameters():
        kept.pop(parameter.untyped_storage()._cdata, None)
    return Cost(
        parameters=sum(p.numel() for p in network.parameters()),
        macs=counter.get_total_flops() // 2,
        activations=sum(tensor.untyped_storage().nbytes() for tensor in kept.values()),
    )


def training_memory(network: nn.Module, activations: int, averaged: bool) -> int:
    """Estimated bytes of a training step with an Adam-like optimizer, workspaces left out.

    Weights, gradients and two moments in float32, averaged weights where there are any, and the
    activations.
    """
    weights = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return 4 * weights * (5 if averaged else 4) + activations
