"""The running average of a network's weights that is validated, saved and used."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """Exponential moving average of `network`'s weights and floating-point buffers.

    The decay of update n is min(decay, (1 + n) / (10 + n)), as in TensorFlow's
    ExponentialMovingAverage: the untrained weights are forgotten within some tens of updates.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take the present weights into the average."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        average = get_ema_multi_avg_fn(decay)
        average(list(self.network.parameters()), list(network.parameters()), self.updates)
        for mine, current in zip(self.network.buffers(), network.buffers(), strict=True):
            if mine.is_floating_point():
                average([mine], [current], self.updates)
            else:  # a counter
                mine.copy_(current)
        self.updates += 1
