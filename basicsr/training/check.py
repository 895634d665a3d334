"""`train.py --check`: try the options, and report whether a run fits and how long it takes."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from basicsr.data import RestorationDataset, build_dataset, training_batches
from basicsr.models.pretrained import RUNS
from basicsr.options import TrainOptions
from basicsr.training.build import build_validators, loader_settings
from basicsr.training.fit import (
    GIB,
    Fit,
    StageFit,
    Trial,
    bf16_advice,
    memory_budget,
    with_checkpointing,
)
from basicsr.utils.errors import options_at


def check(options: TrainOptions, device: torch.device, memory_gib: float | None = None) -> None:
    """Build everything in `options`, take steps, and print what a run needs.

    Args:
        options: the training options.
        device: the device to train on.
        memory_gib: memory budget; by default 90 % of what is free.
    """
    with options_at("datasets.train"):
        dataset = build_dataset(options.datasets.train.arguments())
    validators = build_validators(options, RUNS / options.name)
    datasets = {"train": dataset, **{each.key: each.dataset for each in validators}}
    print(f"{options.name}: the options are valid; {len(dataset)} training images")
    for validator in validators:
        print(f"datasets.{validator.key}: {len(validator.dataset)} validation images")
    batch = next(training_batches(dataset, loader_settings(options, device)))
    print(f"first batch: {tuple(batch.lq.shape)}, {', '.join(batch.names[:4])} ...")
    budget = memory_budget(device, memory_gib)
    trial = _fitting_trial(options, datasets, device, budget)
    trial.time_stages()
    for line in report(trial.fit, options, budget, device.type):
        print(line)


def _fitting_trial(
    options: TrainOptions,
    datasets: Mapping[str, RestorationDataset],
    device: torch.device,
    budget: float,
) -> Trial:
    """Return a trial of the least activation checkpointing that fits, or of the most there is."""
    *less, most = with_checkpointing(options)
    for variant in less:
        trial = Trial(variant, datasets, device, budget)
        if trial.fit.accumulation:
            return trial
        del trial  # frees its memory before the next one is measured
    return Trial(most, datasets, device, budget)


def report(fit: Fit, options: TrainOptions, budget: float, device: str) -> list[str]:
    """Return the lines that answer: does it fit, and how long will it take?

    Args:
        fit: what was measured.
        options: the training options.
        budget: bytes that the run may use.
        device: "cuda" or "cpu".
    """
    memory = "allocated GPU memory" if device == "cuda" else "resident memory"
    step = fit.step
    mode = "" if fit.checkpointing is None else f", activation_checkpointing: {fit.checkpointing}"
    lines = [
        f"{fit.parameters:,} parameters; memory budget {budget / GIB:.2f} GiB of {memory}",
        f"measured: {step.fixed / GIB:.2f} GiB, and {step.per_patch / GIB:.2f} GiB for each patch "
        f"of {step.size}{mode}",
    ]
    lines += [_line(stage) for stage in fit.stages]
    hours = sum(stage.seconds * stage.iters for stage in fit.stages) / 3600
    lines.append(
        f"{options.train.total_iter:,} iterations: {hours:,.1f} hours on one device of this kind, "
        "without validation and waiting for data"
    )
    return [*lines, _answer(fit, options, torch.device(device))]


def _line(stage: StageFit) -> str:
    fitting = f"at most {stage.largest} fit at a time: accumulation_steps {stage.accumulation}"
    if stage.largest == 0:
        fitting = "not even one fits"
    return (
        f"patches of {stage.size}, {stage.share} a step: {stage.macs / 1e9:.2f} GMACs forward and "
        f"{stage.per_patch / GIB:.2f} GiB each; {fitting}; {stage.seconds:.3g} s an iteration "
        f"({stage.source}), {stage.seconds * stage.iters / 3600:,.1f} h"
    )


def _answer(fit: Fit, options: TrainOptions, device: torch.device) -> str:
    """Return the options with which all stages fit."""
    needed = fit.accumulation
    if needed is None:
        return (
            "does not fit: use smaller patches, batch sizes with a larger common divisor, "
            f"{bf16_advice(device)}or more memory"
        )
    peak = max(s.share // needed * s.per_patch for s in fit.stages) + fit.step.fixed
    changes = []
    chosen = options.train.accumulation_steps
    if fit.checkpointing != getattr(options.network_g, "activation_checkpointing", None):
        changes.append(f"network_g:activation_checkpointing={fit.checkpointing}")
    if chosen != "auto" and chosen < needed:
        changes.append(f"train:accumulation_steps={needed}")
    if changes:
        return f"fits with --force_yml {' '.join(changes)} ({peak / GIB:.1f} GiB)"
    used = needed if chosen == "auto" else chosen
    peak = max(s.share // used * s.per_patch for s in fit.stages) + fit.step.fixed
    return f"fits with accumulation_steps: {used} ({peak / GIB:.1f} GiB)"
