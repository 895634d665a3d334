"""Optimizer steps that are taken or skipped by a flag on the device.

Reading the flag on the host would make it wait for the GPU in every step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def step_where(accepted: Tensor, optimizer: torch.optim.Optimizer, first: bool = False) -> None:
    """Take a step of `optimizer`, or leave the weights and its state bit-identical.

    Args:
        accepted: a boolean scalar on the device of the weights.
        optimizer: any optimizer of torch.optim; fused ones need no copy of weights and state.
        first: no step has been taken yet. Optimizers create their state in their first step and
            cannot undo that, so this step alone reads the flag of a GPU on the host.
    """
    if first or accepted.device.type == "cpu":
        if accepted:
            optimizer.step()
    elif getattr(optimizer, "_step_supports_amp_scaling", False):
        # The fused kernels return early where `found_inf` is 1; torch.amp.GradScaler sets it so.
        optimizer.found_inf = (~accepted).float()  # type: ignore[attr-defined]
        optimizer.step()
        del optimizer.found_inf  # type: ignore[attr-defined]
    else:
        tensors = list(_weights_and_state(optimizer))
        before = copies(tensors)
        optimizer.step()
        restore_unless(accepted, tensors, before)


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return detached copies for `restore_unless`."""
    return [tensor.detach().clone() for tensor in tensors]


@torch.no_grad()
def restore_unless(accepted: Tensor, tensors: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    """Write the copies `before` back into `tensors` if the flag `accepted` is false."""
    for tensor, old in zip(map(local, tensors), map(local, before), strict=True):
        tensor.copy_(torch.where(accepted.to(tensor.device), tensor, old))


def local(tensor: Tensor) -> Tensor:
    """Return this process's part of a sharded tensor, any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _weights_and_state(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            yield parameter
            yield from (v for v in optimizer.state[parameter].values() if isinstance(v, Tensor))
