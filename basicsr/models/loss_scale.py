"""Scale of the loss in float16 training, adapted on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from basicsr.models.conditional_step import local

GROWTH_INTERVAL = 2000


class LossScale:
    """Factor of the loss that keeps small float16 gradients from becoming zero.

    It starts at 65536, is halved after a step whose gradients overflow, but never below 1, and
    doubled after 2000 steps without overflow, as torch.amp.GradScaler does. That class reads its
    flags on the host and decides for itself whether to step; here, both stay on the device.
    """

    def __init__(self, device: torch.device) -> None:
        self.value = torch.tensor(2.0**16, device=device)
        self._good_steps = torch.zeros((), device=device)

    @torch.no_grad()
    def unscale(self, gradients: Sequence[Tensor]) -> None:
        """Divide gradients of the scaled loss by the scale, which is exact: it is a power of 2."""
        factor = self.value.reciprocal()
        for gradient in map(local, gradients):
            gradient.mul_(factor)

    @torch.no_grad()
    def adapt(self, finite: Tensor) -> None:
        """Adapt the scale after a step, whose flag says whether its gradients were finite."""
        self._good_steps = torch.where(finite, self._good_steps + 1, 0)
        grown = torch.where(self._good_steps == GROWTH_INTERVAL, 2 * self.value, self.value)
        self.value = torch.where(finite, grown, self.value / 2).clamp_(min=1)
        self._good_steps = self._good_steps % GROWTH_INTERVAL

    def state_dict(self) -> dict[str, float]:
        """Return scale and number of steps since it last changed, for a training state."""
        return {"value": float(self.value), "good_steps": float(self._good_steps)}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from `state_dict`."""
        self.value.fill_(state["value"])
        self._good_steps.fill_(state["good_steps"])
