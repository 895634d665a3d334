"""A network in training: the optimisation step, and everything a checkpoint must hold."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from basicsr.data import TrainingBatch
from basicsr.losses import LossTerms
from basicsr.models.sharding import like, shard, whole
from basicsr.models.weight_average import WeightAverage
from basicsr.utils.distributed import World
from basicsr.utils.errors import CheckpointError
from basicsr.utils.registry import MODEL_REGISTRY


@MODEL_REGISTRY.register
class RestorationModel:
    """Supervised restoration: every loss term compares one of the network's stages with the target.

    Args:
        network: with the same weights in every process; on `device` unless it is to be sharded.
        optimizer: makes the optimizer of the parameters it is given.
        schedule: (iteration, base rate) -> learning rate.
        precision: "bf16" runs the network under autocast; losses are always float32.
        clip_grad_norm: largest gradient norm, or None.
        ema_decay: decay of the averaged weights that are validated and saved; 0 turns them off.
        world: the processes that train together, each on its share of every batch.
        sharded: divide weights, gradients and optimizer state among them, instead of keeping all
            of it in each.
        compiled: translate the network with torch.compile, once for each patch size.
    """

    def __init__(
        self,
        network: nn.Module,
        losses: LossTerms,
        optimizer: Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer],
        schedule: Callable[[int, float], float],
        device: torch.device,
        precision: str = "fp32",
        clip_grad_norm: float | None = None,
        ema_decay: float = 0.0,
        world: World | None = None,
        sharded: bool = False,
        compiled: bool = False,
    ) -> None:
        self.network = network
        self.losses = losses
        self.schedule = schedule
        self.device = device
        self.precision = precision
        self.clip_grad_norm = clip_grad_norm
        self.average = WeightAverage(network, ema_decay) if ema_decay else None
        self.world = world or World()
        self.sharded = sharded and self.world.size > 1
        if self.sharded:
            shard(network, device)
            if self.average is not None:
                shard(self.average.network, device)
        self.parallel = (
            _replicated(network, device) if self.world.size > 1 and not self.sharded else network
        )
        self._forward = torch.compile(self.parallel, dynamic=False) if compiled else self.parallel
        self._first = True  # step; DDP learns its static graph from it
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = optimizer(self.parameters)
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]

    def compute_gradients(
        self, iteration: int, micro_batches: Sequence[TrainingBatch]
    ) -> tuple[dict[str, Tensor], bool]:
        """Losses of the micro-batches together, detached, by name, with the gradients' norm, and
        whether they are finite. The gradients are this process's part of the step."""
        self.network.train()
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = self.schedule(iteration, base)
        self.optimizer.zero_grad(set_to_none=True)
        shown: dict[str, Tensor] = {}
        for number, batch in enumerate(micro_batches, 1):
            with self._synchronised_if(number == len(micro_batches) or self._first):
                for name, value in self._backward(batch, 1 / len(micro_batches)).items():
                    shown[name] = shown.get(name, 0) + value / len(micro_batches)
        self._first = False
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        self._gradient_norm = get_total_norm(gradients)
        shown["grad_norm"] = whole(self._gradient_norm)
        finite = torch.isfinite(shown["loss"]) & torch.isfinite(shown["grad_norm"])
        return shown, bool(finite)

    def update(self) -> None:
        """Take the step that the computed gradients ask for."""
        if self.clip_grad_norm is not None:
            clip_grads_with_norm_(self.parameters, self.clip_grad_norm, self._gradient_norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.network)

    def _backward(self, batch: TrainingBatch, share: float) -> dict[str, Tensor]:
        lq, gt = self._on_device(batch.lq), self._on_device(batch.gt)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            stages = self._forward(lq, all_stages=True)
        total, terms = self.losses(stages, gt)
        (total * share).backward()
        return {"loss": total.detach(), **{name: term.detach() for name, term in terms.items()}}

    def _synchronised_if(self, shared: bool) -> Any:
        """Only the last micro-batch's backward pass shares gradients between the processes."""
        if isinstance(self.parallel, DistributedDataParallel):
            return nullcontext() if shared else self.parallel.no_sync()
        if isinstance(self.parallel, FSDPModule):
            self.parallel.set_requires_gradient_sync(shared)
        return nullcontext()

    def _on_device(self, images: Tensor) -> Tensor:
        """A uint8 batch as floats in [0, 1] on the device."""
        images = images.to(self.device, memory_format=torch.channels_last, non_blocking=True)
        return images.float().div_(255)

    @property
    def learning_rate(self) -> float:
        return self.optimizer.param_groups[0]["lr"]

    @property
    def restoring_network(self) -> nn.Module:
        """The network to validate, save and use: the averaged one where there is one.

        A sharded one holds this process's part only.
        """
        return self.network if self.average is None else self.average.network

    def weights(self) -> dict[str, Tensor]:
        """The whole weights of the restoring network. Collective where they are sharded."""
        return {key: whole(value) for key, value in self.restoring_network.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on, apart from the options and the iteration.

        The same for any number of processes, sharded or not. Collective where it is sharded.
        """
        optimizer = self.optimizer.state_dict()
        optimizer["state"] = {
            number: {name: whole(value) for name, value in state.items()}
            for number, state in optimizer["state"].items()
        }
        network = {key: whole(value) for key, value in self.network.state_dict().items()}
        average = None
        if self.average is not None:
            average = {"weights": self.weights(), "updates": self.average.updates}
        return {"network": network, "average": average, "optimizer": optimizer}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where `state_dict` was taken. Raises CheckpointError where it does not fit."""
        if (state["average"] is None) != (self.average is None):
            raise CheckpointError(
                "the training state was saved with another train.ema_decay (averaging on or off)"
            )
        try:
            _load(self.network, state["network"])
            if self.average is not None:
                _load(self.average.network, state["average"]["weights"])
                self.average.updates = state["average"]["updates"]
            self.optimizer.load_state_dict(self._own_part(state["optimizer"]))
        except (RuntimeError, ValueError, KeyError, IndexError) as error:
            raise CheckpointError(
                "the training state is of another network or optimizer: "
                f"{' '.join(str(error).split())[:300]}"
            ) from None

    def _own_part(self, optimizer: Mapping[str, Any]) -> dict[str, Any]:
        """An optimizer's whole state as this process keeps it."""
        states = {
            number: {
                name: like(self.parameters[number], value)
                if isinstance(value, Tensor) and value.shape == self.parameters[number].shape
                else value
                for name, value in state.items()
            }
            for number, state in optimizer["state"].items()
        }
        return {**optimizer, "state": states}


def _replicated(network: nn.Module, device: torch.device) -> DistributedDataParallel:
    # in channels_last, depthwise weights have two stride notations; the remark is of no use
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    return DistributedDataParallel(
        network,
        device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        static_graph=True,
    )


def _load(network: nn.Module, whole_weights: Mapping[str, Tensor]) -> None:
    own = network.state_dict()
    network.load_state_dict(
        {
            key: like(own[key], value) if key in own else value
            for key, value in whole_weights.items()
        }
    )
