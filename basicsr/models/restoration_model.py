"""A network in training: the optimization step, and the content of a checkpoint."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from basicsr.archs import RestorationNetwork
from basicsr.data import TrainingBatch
from basicsr.io.state_dicts import named_tensors
from basicsr.losses import LossTerms
from basicsr.models.conditional_step import copies, restore_unless, step_where
from basicsr.models.loss_scale import LossScale
from basicsr.models.mixup import Mixup
from basicsr.models.schedules import LearningRateSchedule
from basicsr.models.sharding import full, shard, sharded_like
from basicsr.models.weight_average import WeightAverage
from basicsr.utils.devices import autocast, to_unit_range
from basicsr.utils.distributed import World
from basicsr.utils.errors import CheckpointError
from basicsr.utils.registry import MODEL_REGISTRY

OptimizerFactory = Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class StepSettings:
    """Options of the optimization step.

    Attributes:
        precision: "bf16" and "fp16" run the network under autocast, even if the device emulates
            them; losses are always float32. With "fp16" the loss is scaled (see `LossScale`).
        clip_grad_norm: largest gradient norm, or None.
        ema_decay: decay of the averaged weights that are validated and saved; 0 turns them off.
        sharded: divide weights, gradients and optimizer state among the processes (FSDP2) instead
            of replicating them (DDP).
        compiled: compile the network with torch.compile, once for each patch size.
        mixup: mixup of the patches, or None.
    """

    precision: str = "fp32"
    clip_grad_norm: float | None = None
    ema_decay: float = 0.0
    sharded: bool = False
    compiled: bool = False
    mixup: Mixup | None = None


class StepResult(NamedTuple):
    """Result of an optimization step, on the device.

    `losses` are the total loss, its terms and the gradient norm by name. A step with a non-finite
    loss or gradient in any process was skipped by all of them: `finite` is false. `rescaled` is
    true if that was an ordinary overflow of float16 gradients, after which the loss scale is lower.
    """

    losses: dict[str, Tensor]
    finite: Tensor
    rescaled: Tensor


@MODEL_REGISTRY.register
class RestorationModel:
    """Supervised restoration: each loss term compares one stage of the network with the target.

    Args:
        network: with the same weights in every process; on `device` unless it is to be sharded.
        losses: the loss terms, on `device`.
        optimizer: makes the optimizer of given parameters.
        schedule: the learning-rate schedule.
        device: the device of this process.
        settings: options of the step.
        world: the processes that train together, each on its share of every batch.
    """

    def __init__(
        self,
        network: RestorationNetwork,
        losses: LossTerms,
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        device: torch.device,
        settings: StepSettings | None = None,
        world: World | None = None,
    ) -> None:
        self.network = network
        self.losses = losses
        self.schedule = schedule
        self.device = device
        self.settings = settings or StepSettings()
        self.world = world or World()
        self.sharded = self.settings.sharded and self.world.size > 1
        decay = self.settings.ema_decay
        self.loss_scale = LossScale(device) if self.settings.precision == "fp16" else None
        self.average = WeightAverage(network, decay, device) if decay else None
        self.parallel = self._distributed(network)
        self._forward = (
            torch.compile(self.parallel, dynamic=False) if self.settings.compiled else self.parallel
        )
        self._static_graph_known = False  # DDP learns it in the first step
        self._optimizer_has_state = False
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = optimizer(self.parameters)
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]

    def _distributed(self, network: nn.Module) -> nn.Module:
        """Return the network as it is called in training: replicated, sharded or as it is."""
        if self.sharded:
            shard(network, self.device)
            if self.average is not None:
                shard(self.average.network, self.device)
            return network
        return _replicated(network, self.device) if self.world.size > 1 else network

    def optimize_parameters(
        self, iteration: int, micro_batches: Sequence[TrainingBatch]
    ) -> StepResult:
        """Take an optimization step; skip it if a loss or gradient is not finite.

        A skipped step leaves weights, buffers, averaged weights and optimizer state bit-identical.
        The decision stays on the device: nothing here waits for a GPU.
        """
        buffers = list(self.network.buffers())  # running statistics change in the forward pass
        before = copies(buffers)
        losses = self.compute_gradients(iteration, micro_batches)
        finite, finite_loss = self._finite_everywhere(losses["grad_norm"], losses["loss"])
        finite = finite & finite_loss
        self.update(finite)
        restore_unless(finite, buffers, before)
        if self.average is not None:
            self.average.update(self.network, finite)
        return StepResult(losses, finite, self._rescaled(finite, finite_loss))

    def compute_gradients(
        self, iteration: int, micro_batches: Sequence[TrainingBatch]
    ) -> dict[str, Tensor]:
        """Accumulate gradients; return the mean losses of the micro-batches, and the gradient norm.

        The losses are those of this process's share of the batch.
        """
        self.network.train()
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = self.schedule(iteration, base)
        self.optimizer.zero_grad(set_to_none=True)
        losses: dict[str, Tensor] = {}
        for number, batch in enumerate(micro_batches):
            last = number == len(micro_batches) - 1
            lq, gt = self._images(batch, iteration, self.world.rank * len(micro_batches) + number)
            with self._gradients_shared_if(last or not self._static_graph_known):
                for name, value in self._backward(lq, gt, 1 / len(micro_batches)).items():
                    losses[name] = losses.get(name, 0) + value / len(micro_batches)
        self._static_graph_known = True
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if self.loss_scale is not None:
            self.loss_scale.unscale(gradients)
            losses["loss_scale"] = self.loss_scale.value
        self._gradient_norm = get_total_norm(gradients)
        losses["grad_norm"] = full(self._gradient_norm)
        return losses

    def update(self, accepted: Tensor) -> None:
        """Clip the gradients and step the optimizer, if the flag `accepted` is true."""
        limit = self.settings.clip_grad_norm
        if limit is not None:
            clip_grads_with_norm_(self.parameters, limit, self._gradient_norm)
        step_where(accepted, self.optimizer, first=not self._optimizer_has_state)
        self._optimizer_has_state = self._optimizer_has_state or bool(accepted)

    def _finite_everywhere(self, *values: Tensor) -> Tensor:
        """Return, on the device, which of the scalars are finite in all processes."""
        finite = torch.stack(values).isfinite()
        if self.world.size == 1:
            return finite
        agreed = finite.to(torch.int32)
        dist.all_reduce(agreed, dist.ReduceOp.MIN)
        return agreed.bool()

    def _rescaled(self, finite: Tensor, finite_loss: Tensor) -> Tensor:
        """Adapt the loss scale; return whether overflowing gradients have lowered it."""
        if self.loss_scale is None:
            return torch.zeros_like(finite)
        before = self.loss_scale.value
        self.loss_scale.adapt(finite | ~finite_loss)  # a lower scale does not help the loss
        return self.loss_scale.value < before

    def _images(self, batch: TrainingBatch, iteration: int, part: int) -> tuple[Tensor, Tensor]:
        """Return `lq` and `gt` of a micro-batch, number `part` of all, on the device."""
        lq, gt = (to_unit_range(images, self.device) for images in (batch.lq, batch.gt))
        mixup = self.settings.mixup
        return (lq, gt) if mixup is None else mixup(lq, gt, iteration, part)

    def _backward(self, lq: Tensor, gt: Tensor, share: float) -> dict[str, Tensor]:
        with autocast(self.device.type, self.settings.precision):
            stages = self._forward(lq, all_stages=True)
        total, terms = self.losses(stages, gt)
        scaled = total * share
        if self.loss_scale is not None:
            scaled = scaled * self.loss_scale.value
        scaled.backward()
        return {"loss": total.detach(), **{name: term.detach() for name, term in terms.items()}}

    def _gradients_shared_if(self, shared: bool) -> AbstractContextManager:
        """Let the processes exchange gradients in this backward pass only if it is `shared`."""
        if isinstance(self.parallel, DistributedDataParallel):
            return nullcontext() if shared else self.parallel.no_sync()
        if isinstance(self.parallel, FSDPModule):
            self.parallel.set_requires_gradient_sync(shared)
        return nullcontext()

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last step."""
        return self.optimizer.param_groups[0]["lr"]

    @property
    def inference_network(self) -> RestorationNetwork:
        """The network to validate, save and use: the averaged one if weights are averaged.

        If it is sharded, it holds only this process's part.
        """
        return self.network if self.average is None else self.average.network

    def weights(self) -> dict[str, Tensor]:
        """Return the full weights of the inference network. Collective if they are sharded."""
        return {key: _on_cpu(value) for key, value in self.inference_network.state_dict().items()}

    def non_finite(self) -> list[str]:
        """Return the names of tensors with NaN or inf: weights, averages, optimizer state.

        Those are the tensors of this process, if weights are sharded. Waits for the device.
        """
        average = {} if self.average is None else self.average.network.state_dict()
        parts = {
            "network": self.network.state_dict(),
            "average": average,
            "optimizer": self.optimizer.state_dict()["state"],
        }
        named = [(name, _own_part_of(value)) for name, value in named_tensors(parts)]
        named = [(name, value) for name, value in named if value.is_floating_point()]
        if not named:
            return []
        finite = torch.stack([torch.isfinite(v).all().to(self.device) for _, v in named])
        return [name for (name, _), each in zip(named, finite.tolist(), strict=True) if not each]

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on, except options and iteration.

        It is the same for any number of processes, sharded or not. Collective if it is sharded.
        """
        optimizer = self.optimizer.state_dict()
        optimizer["state"] = {
            number: {name: _on_cpu(value) for name, value in state.items()}
            for number, state in optimizer["state"].items()
        }
        network = {key: _on_cpu(value) for key, value in self.network.state_dict().items()}
        average = None
        if self.average is not None:
            average = {"weights": self.weights(), "updates": self.average.updates}
        scale = None if self.loss_scale is None else self.loss_scale.state_dict()
        return {
            "network": network,
            "average": average,
            "optimizer": optimizer,
            "loss_scale": scale,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`. Raises CheckpointError if it does not fit."""
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
            self._optimizer_has_state = bool(self.optimizer.state)
            if self.loss_scale is not None and state.get("loss_scale"):
                self.loss_scale.load_state_dict(state["loss_scale"])
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise CheckpointError(
                "the training state is of another network or optimizer: "
                f"{' '.join(str(error).split())[:300]}"
            ) from None

    def _own_part(self, optimizer: Mapping[str, Any]) -> dict[str, Any]:
        """Return this process's part of the full state of the optimizer."""
        # Its groups number the parameters, perhaps in another order than the network.
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        states = {
            number: {
                name: sharded_like(parameters[number], value)
                if isinstance(value, Tensor) and value.shape == parameters[number].shape
                else value
                for name, value in state.items()
            }
            for number, state in optimizer["state"].items()
        }
        return {**optimizer, "state": states}


def _replicated(network: nn.Module, device: torch.device) -> DistributedDataParallel:
    # In channels_last, depthwise weights have two equivalent strides, which DDP warns about.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    return DistributedDataParallel(
        network,
        device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        static_graph=True,
    )


def _load(network: nn.Module, full_weights: Mapping[str, Tensor]) -> None:
    own = network.state_dict()
    network.load_state_dict(
        {
            key: sharded_like(own[key], value) if key in own else value
            for key, value in full_weights.items()
        }
    )


def _own_part_of(value: Tensor) -> Tensor:
    return value.to_local() if isinstance(value, DTensor) else value


def _on_cpu(value: Any) -> Any:
    """Return the full tensor of a sharded one, on the CPU; anything else as it is."""
    return full(value).cpu() if isinstance(value, DTensor) else value
