"""Micro-batches that fit the memory, and the time of a training step: measured, then scaled."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch

from basicsr.archs.transformer_blocks import Checkpointing
from basicsr.data import RestorationDataset, SampleStage, TrainingBatch, training_batches
from basicsr.models.cost import bounded_memory, network_cost, synchronize, training_memory
from basicsr.models.restoration_model import RestorationModel
from basicsr.options import TrainOptions
from basicsr.training.build import build_model, loader_settings
from basicsr.utils.devices import (
    available_memory,
    has_units,
    is_out_of_memory,
    memory_in_use,
    peak_memory_gib,
    reset_peak_memory,
)
from basicsr.utils.distributed import World
from basicsr.utils.errors import OptionsError, UserError

GIB = 2**30
MEASURED_SECONDS = 10.0
"""Longest computation of gradients that is measured; longer ones are scaled from shorter ones."""
TIMED_STEPS = 4
"""Steps that are timed, fewer if they are long. The first ones wait until memory is handed out."""

Result = TypeVar("Result")

logger = logging.getLogger("basicsr")


class MeasuredStep(NamedTuple):
    """Optimization step on one micro-batch of `patches` patches of `size` x `size` pixels.

    Attributes:
        size: side of the patches.
        patches: number of patches.
        fixed: bytes in use between micro-batches: weights, gradients, optimizer state, and on a
            CPU the libraries.
        per_patch: further bytes at the peak, divided by the patches.
        seconds: duration of the gradients, divided by the patches.
        update: duration of the rest of the step, mostly the optimizer's; it does not depend on the
            number of patches.

    Durations are the shortest of several.
    """

    size: int
    patches: int
    fixed: int
    per_patch: float
    seconds: float
    update: float = 0.0


class StageFit(NamedTuple):
    """Memory and time of a stage of training.

    Attributes:
        size: side of the patches.
        share: patches of a step in this process.
        iters: number of steps.
        macs: multiply-accumulates of the forward pass of one patch.
        per_patch: bytes of each patch of a micro-batch.
        largest: patches of the largest micro-batch that fits; 0 if not even one does.
        seconds: duration of a step.
        source: how it was found.
    """

    size: int
    share: int
    iters: int
    macs: int
    per_patch: float
    largest: int
    seconds: float = math.nan
    source: str = ""

    @property
    def accumulation(self) -> int | None:
        """The smallest number of equal micro-batches that fit; None if a patch does not."""
        return smallest_accumulation([self])


@dataclasses.dataclass
class Fit:
    """Whether a training run fits into memory.

    Attributes:
        checkpointing: `activation_checkpointing` of the network; None if it has no such option.
        parameters: number of weights.
        step: the measured step.
        stages: the stages of the run.
    """

    checkpointing: str | None
    parameters: int
    step: MeasuredStep
    stages: list[StageFit]

    @property
    def accumulation(self) -> int | None:
        """The smallest number of micro-batches with which all stages fit; None if none does."""
        return smallest_accumulation(self.stages)


def bf16_advice(device: torch.device) -> str:
    """Return the advice to train in bf16, if `device` does not emulate it."""
    return "train.precision: bf16, " if has_units(device, "bf16") else ""


def smallest_accumulation(stages: Sequence[StageFit]) -> int | None:
    """Return the smallest number of micro-batches that divides all batches and fits, or None."""
    common = math.gcd(*(stage.share for stage in stages))
    for count in range(1, common + 1):
        if common % count == 0 and all(s.share // count <= s.largest for s in stages):
            return count
    return None


def memory_budget(device: torch.device, gib: float | None = None) -> float:
    """Return `gib` in bytes, or by default what is in use and 90 % of what is free."""
    if gib is not None:
        return gib * GIB
    return memory_in_use(device) + 0.9 * available_memory(device)


class Trial:
    """A model of its own on which steps are measured.

    Args:
        options: the training options.
        datasets: training and validation sets by their keys in `datasets`.
        device: the device of this process.
        budget: bytes that the run may use.
        processes: number of processes that share each batch.

    Raises:
        UserError: not even a single patch can be measured on this machine.
    """

    def __init__(
        self,
        options: TrainOptions,
        datasets: Mapping[str, RestorationDataset],
        device: torch.device,
        budget: float,
        processes: int = 1,
    ) -> None:
        self.options, self.dataset, self.device = options, datasets["train"], device
        self.budget = budget
        self.model = build_model(options, datasets, device)
        patches = options.datasets.train.patches
        for stage in patches:
            if stage.batch_size % processes:
                raise OptionsError(
                    f"datasets.train.patches: batch_size {stage.batch_size} cannot be shared by "
                    f"{processes} processes; use a multiple of it"
                )
        network = self.model.network
        shapes = {stage.size: (1, network.in_channels, stage.size, stage.size) for stage in patches}
        self.costs = {
            size: network_cost(network, shape, self.model.settings.precision)
            for size, shape in shapes.items()
        }
        smallest = min(shapes)
        step = self._step(smallest, 1)
        if step is None:
            needed = self._estimate(smallest) / GIB
            raise UserError(
                f"datasets.train.patches: a single patch of {smallest} needs more memory than is "
                f"free (about {needed:.1f} GiB, without temporary buffers); use smaller patches, "
                f"{bf16_advice(device)}or activation_checkpointing if network_g has it"
            )
        stages = []
        for stage in patches:
            cost = self.costs[stage.size]
            share = stage.batch_size // processes
            per_patch = step.per_patch * self._ratio("activations", stage.size, smallest)
            largest = max(0, min(share, int((budget - step.fixed) / per_patch)))
            stages.append(StageFit(stage.size, share, stage.iters, cost.macs, per_patch, largest))
        self.fit = Fit(
            getattr(options.network_g, "activation_checkpointing", None),
            self.costs[smallest].parameters,
            step,
            stages,
        )

    def time_stages(self) -> None:
        """Add seconds to the stages of `fit`: measured, or scaled by multiply-accumulates."""
        known = self.fit.step
        accumulation = self.fit.accumulation
        free = available_memory(self.device)
        for number, stage in enumerate(self.fit.stages):
            seconds = known.seconds * self._ratio("macs", stage.size, known.size)
            wanted = stage.share // accumulation if accumulation else max(stage.largest, 1)
            affordable = min(MEASURED_SECONDS / seconds, 0.9 * free / stage.per_patch)
            patches = min(wanted, int(affordable))
            if (patches, stage.size) != (known.patches, known.size) and patches:
                step = self._step(stage.size, patches)
                if step is not None:
                    known, seconds = step, step.seconds
            source = f"measured on {known.patches}, times {stage.share / known.patches:g}"
            if known.size != stage.size:
                source = f"scaled from {known.patches} of {known.size} by multiply-accumulates"
            duration = seconds * stage.share + known.update
            self.fit.stages[number] = stage._replace(seconds=duration, source=source)

    def _ratio(self, figure: str, size: int, other: int) -> float:
        return getattr(self.costs[size], figure) / max(getattr(self.costs[other], figure), 1)

    def _estimate(self, size: int) -> int:
        averaged = self.options.train.ema_decay > 0
        return training_memory(self.model.network, self.costs[size].activations, averaged)

    def _step(self, size: int, patches: int) -> MeasuredStep | None:
        """Measure a step on the first patches of the training set; None if memory runs out."""
        if self._estimate(size) > available_memory(self.device):
            return None
        settings = dataclasses.replace(
            loader_settings(self.options, self.device),
            patches=[SampleStage(size, patches, 1)],
            micro_batches=1,
            num_workers=0,
        )
        batch = next(training_batches(self.dataset, settings))
        try:
            with bounded_memory(self.device):
                return measured_step(self.model, batch)
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                return None
            raise


def measured_step(model: RestorationModel, batch: TrainingBatch) -> MeasuredStep:
    """Measure an optimization step on `batch`, after an untimed one."""
    device = model.device
    _step_seconds(model, batch)  # makes the optimizer's state
    fixed = memory_in_use(device)
    model.optimizer.zero_grad(set_to_none=True)
    before = memory_in_use(device)
    reset_peak_memory(device)
    steps = [_step_seconds(model, batch)]
    peak = peak_memory_gib(device) * GIB
    gradients = [_seconds(model.compute_gradients, batch, device)[0]]
    while len(steps) < TIMED_STEPS and sum(steps) + sum(gradients) < MEASURED_SECONDS:
        steps.append(_step_seconds(model, batch))
        gradients.append(_seconds(model.compute_gradients, batch, device)[0])
    patches, _, _, size = batch.lq.shape
    per_patch = max(peak - before, 1.0) / patches
    update = max(min(steps) - min(gradients), 0)
    seconds = (min(steps) - update) / patches
    return MeasuredStep(size, patches, fixed, per_patch, seconds, update)


def _step_seconds(model: RestorationModel, batch: TrainingBatch) -> float:
    """Return the seconds of a step, in fp16 of the first one whose gradients do not overflow."""
    while True:
        seconds, step = _seconds(model.optimize_parameters, batch, model.device)
        if not step.rescaled:
            return seconds


def _seconds(
    part: Callable[[int, Sequence[TrainingBatch]], Result],
    batch: TrainingBatch,
    device: torch.device,
) -> tuple[float, Result]:
    """Return the seconds of a step, or of a part of it, on `batch`, and its result."""
    synchronize(device)
    start = time.perf_counter()
    result = part(0, [batch])
    synchronize(device)
    return time.perf_counter() - start, result


def with_checkpointing(options: TrainOptions) -> list[TrainOptions]:
    """Return `options`, and their copies with more activation checkpointing, if there is any."""
    present = getattr(options.network_g, "activation_checkpointing", None)
    modes = typing.get_args(Checkpointing)
    if present is None:
        return [options]
    more = modes[modes.index(present) + 1 :]
    networks = [
        options.network_g.model_copy(update={"activation_checkpointing": mode}) for mode in more
    ]
    return [options, *(options.model_copy(update={"network_g": each}) for each in networks)]


def choose_accumulation(
    options: TrainOptions,
    datasets: Mapping[str, RestorationDataset],
    device: torch.device,
    world: World,
    state: Mapping[str, Any],
) -> TrainOptions:
    """Return `options` with a number for `accumulation_steps: auto`. Collective.

    It is that of `state`, the training state to resume from, if the batches can still be divided
    so; otherwise the smallest with which every process fits into memory.

    Raises:
        UserError: No number makes the run fit.
    """
    if options.train.accumulation_steps != "auto":
        return options
    shares = [stage.batch_size / world.size for stage in options.datasets.train.patches]
    count = state["identity"]["options"]["train"]["accumulation_steps"] if state else None
    if count is None or any(share % count for share in shares):
        count = _measured_accumulation(options, datasets, device, world)
    logger.info("accumulation_steps: auto is %d in this run", count)
    training = options.train.model_copy(update={"accumulation_steps": count})
    return options.model_copy(update={"train": training})


def _measured_accumulation(
    options: TrainOptions,
    datasets: Mapping[str, RestorationDataset],
    device: torch.device,
    world: World,
) -> int:
    trial = Trial(options, datasets, device, memory_budget(device), world.size)
    counts = world.gather(trial.fit.accumulation)
    if None in counts:
        raise UserError(
            "train.accumulation_steps: auto: the batches do not fit into memory with any number "
            "of steps that divides all of them; try train.py --check for what would"
        )
    return max(counts)
