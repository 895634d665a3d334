"""Exponential moving average of a network's weights, which is validated, saved and used."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from basicsr.archs import RestorationNetwork
from basicsr.models.conditional_step import local


class WeightAverage:
    """Exponential moving average of the weights and floating-point buffers of `network`.

    The decay of update n is min(decay, (1 + n) / (10 + n)), as in TensorFlow's
    ExponentialMovingAverage: the average forgets the untrained weights within some tens of updates.
    """

    def __init__(
        self, network: RestorationNetwork, decay: float, device: torch.device | None = None
    ) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay
        self._updates = torch.zeros((), dtype=torch.float64, device=device)

    @property
    def updates(self) -> int:
        """Number of updates. Reading it waits for the device."""
        return int(self._updates)

    @updates.setter
    def updates(self, value: int) -> None:
        self._updates.fill_(value)

    @torch.no_grad()
    def update(self, network: nn.Module, accepted: Tensor | None = None) -> None:
        """Add the weights of `network` to the average, unless the flag `accepted` is false.

        `accepted` is a boolean scalar on the device, which is not read on the host.
        """
        decay = ((1 + self._updates) / (10 + self._updates)).clamp(max=self.decay)
        weight = 1 - decay if accepted is None else (1 - decay) * accepted
        average, current = _floating_point(self.network), _floating_point(network)
        if weight.device.type == "cpu":
            torch._foreach_lerp_(average, current, float(weight))
        else:
            change = torch._foreach_sub(current, average)
            torch._foreach_mul_(change, weight.float())
            torch._foreach_add_(average, change)
        for mine, other in zip(self.network.buffers(), network.buffers(), strict=True):
            if not mine.is_floating_point():  # a counter
                mine.copy_(other)
        self._updates += 1 if accepted is None else accepted


def _floating_point(network: nn.Module) -> list[Tensor]:
    """Return the averaged tensors of a network, this process's parts if it is sharded."""
    tensors = (*network.parameters(), *network.buffers())
    return [local(tensor) for tensor in tensors if tensor.is_floating_point()]
