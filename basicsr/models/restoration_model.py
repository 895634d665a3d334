"""A network in training: the optimisation step, and everything a checkpoint must hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from basicsr.data import TrainingBatch
from basicsr.losses import LossTerms
from basicsr.utils.errors import CheckpointError
from basicsr.utils.registry import MODEL_REGISTRY


@MODEL_REGISTRY.register
class RestorationModel:
    """Supervised restoration: every loss term compares one of the network's stages with the target.

    Args:
        optimizer: built for the parameters of `network`, which is on `device` already.
        schedule: (iteration, base rate) -> learning rate.
        precision: "bf16" runs the network under autocast; losses are always float32.
        clip_grad_norm: largest gradient norm, or None.
        ema_decay: decay of the averaged weights that are validated and saved; 0 turns them off.
    """

    def __init__(
        self,
        network: nn.Module,
        losses: LossTerms,
        optimizer: torch.optim.Optimizer,
        schedule: Callable[[int, float], float],
        device: torch.device,
        precision: str = "fp32",
        clip_grad_norm: float | None = None,
        ema_decay: float = 0.0,
    ) -> None:
        self.network = network
        self.losses = losses
        self.optimizer = optimizer
        self.base_rates = [group["lr"] for group in optimizer.param_groups]
        self.schedule = schedule
        self.device = device
        self.precision = precision
        self.clip_grad_norm = clip_grad_norm
        self.average = (
            AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(ema_decay), use_buffers=True)
            if ema_decay
            else None
        )

    def step(self, iteration: int, micro_batches: Sequence[TrainingBatch]) -> dict[str, Tensor]:
        """One optimisation step over the micro-batches together; the losses, detached, by name."""
        self.network.train()
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = self.schedule(iteration, base)
        self.optimizer.zero_grad(set_to_none=True)
        shown: dict[str, Tensor] = {}
        for batch in micro_batches:
            for name, value in self._backward(batch, 1 / len(micro_batches)).items():
                shown[name] = shown.get(name, 0) + value / len(micro_batches)
        if self.clip_grad_norm is not None:
            shown["grad_norm"] = nn.utils.clip_grad_norm_(
                self.network.parameters(), self.clip_grad_norm
            )
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.network)
        return shown

    def _backward(self, batch: TrainingBatch, share: float) -> dict[str, Tensor]:
        lq, gt = self._on_device(batch.lq), self._on_device(batch.gt)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            stages = self.network(lq, all_stages=True)
        total, terms = self.losses(stages, gt)
        (total * share).backward()
        return {"loss": total.detach(), **{name: term.detach() for name, term in terms.items()}}

    def _on_device(self, images: Tensor) -> Tensor:
        """A uint8 batch as floats in [0, 1] on the device."""
        images = images.to(self.device, memory_format=torch.channels_last, non_blocking=True)
        return images.float().div_(255)

    @property
    def learning_rate(self) -> float:
        return self.optimizer.param_groups[0]["lr"]

    @property
    def restoring_network(self) -> nn.Module:
        """The network to validate, save and use: the averaged one where there is one."""
        return self.network if self.average is None else self.average.module

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on, apart from the options and the iteration."""
        return {
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where `state_dict` was taken. Raises CheckpointError where it does not fit."""
        if (state["average"] is None) != (self.average is None):
            raise CheckpointError(
                "the training state was saved with another train.ema_decay (averaging on or off)"
            )
        try:
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                "the training state is of another network or optimizer: "
                f"{str(error).splitlines()[0]}"
            ) from None
