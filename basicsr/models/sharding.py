"""Sharding of weights among the processes of a run (FSDP2), and gathering them."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from basicsr.archs.transformer_blocks import Blocks


def shard(network: nn.Module, device: torch.device) -> None:
    """Divide each parameter among the processes, each part on the process's `device`.

    Transformer blocks are gathered one by one when they are used, the rest of the network at once.
    """
    for parameter in network.parameters():  # tensors in channels_last cannot be divided
        parameter.data = parameter.data.contiguous()
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for module in network.modules():
        if isinstance(module, Blocks):
            for block in module:
                fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)


def full(value: Any) -> Any:
    """Return the full tensor of a sharded one, anything else as it is. Collective."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def sharded_like(reference: Tensor, value: Tensor) -> Tensor:
    """Return the full tensor `value`, sharded and laid out in memory as `reference` is.

    `value` is the same in every process. Fused optimizers need one memory layout for weights and
    moments.
    """
    if not isinstance(reference, DTensor):
        return torch.empty_like(reference, dtype=value.dtype).copy_(value)
    return distribute_tensor(
        value.to(reference.device), reference.device_mesh, reference.placements, src_data_rank=None
    )
