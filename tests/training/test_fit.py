"""Micro-batches that fit, and the time of a run."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from basicsr.training import fit
from basicsr.training.check import report
from basicsr.training.fit import (
    GIB,
    Fit,
    MeasuredStep,
    StageFit,
    measured_step,
    smallest_accumulation,
)

STEP = MeasuredStep(size=128, patches=1, fixed=2 * GIB, per_patch=1.0 * GIB, seconds=0.5)


def stage(share, largest, size=128, iters=3600):
    return StageFit(
        size, share, iters, 10**9, 1.0 * GIB, largest, seconds=2.0, source="measured on 1, times 2"
    )


def settings(steps, mode="none"):
    return SimpleNamespace(
        train=SimpleNamespace(accumulation_steps=steps, total_iter=7200),
        network_g=SimpleNamespace(activation_checkpointing=mode),
    )


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([(64, 64)], 1),
        ([(64, 40)], 2),
        ([(64, 9)], 8),
        ([(64, 1)], 64),
        ([(64, 0)], None),
        ([(64, 40), (8, 1)], 8),
        ([(64, 7), (40, 40)], None),  # common divisors are 1, 2, 4 and 8: at best 8 patches
        ([(6, 2), (9, 9)], 3),
    ],
)
def test_the_smallest_accumulation_divides_all_batches(stages, expected):
    assert smallest_accumulation([stage(*each) for each in stages]) == expected


def test_steps_whose_gradients_overflow_are_not_measured(monkeypatch):
    """Such a step takes 1 s here, one that is taken 7 s, and gradients 2 s."""
    clock, steps = [0.0], iter("xxx" + "sxss" + "s" * fit.TIMED_STEPS)
    monkeypatch.setattr(fit.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(fit, "MEASURED_SECONDS", 1000)

    class Overflowing:
        device = torch.device("cpu")
        optimizer = SimpleNamespace(zero_grad=lambda set_to_none: None)

        def optimize_parameters(self, iteration, micro_batches):
            overflows = next(steps) == "x"
            clock[0] += 1 if overflows else 7
            return SimpleNamespace(rescaled=torch.tensor(overflows))

        def compute_gradients(self, iteration, micro_batches):
            clock[0] += 2

    step = measured_step(Overflowing(), SimpleNamespace(lq=torch.zeros(2, 3, 16, 16)))
    assert (step.patches, step.size, step.seconds, step.update) == (2, 16, 1, 5)


def test_the_report_names_the_options_that_make_it_fit():
    measured = Fit("none", 1000, STEP, [stage(64, 9), stage(8, 1, size=384)])
    lines = report(measured, settings(1), 12 * GIB, "cuda")
    assert lines[0] == "1,000 parameters; memory budget 12.00 GiB of allocated GPU memory"
    assert lines[1].startswith("measured: 2.00 GiB, and 1.00 GiB for each patch of 128")
    assert lines[2] == (
        "patches of 128, 64 a step: 1.00 GMACs forward and 1.00 GiB each; at most 9 fit at a time: "
        "accumulation_steps 8; 2 s an iteration (measured on 1, times 2), 2.0 h"
    )
    assert "7,200 iterations: 4.0 hours" in lines[4]
    assert lines[-1] == "fits with --force_yml train:accumulation_steps=8 (10.0 GiB)"


@pytest.mark.parametrize(
    ("steps", "mode", "answer"),
    [
        ("auto", "none", "fits with accumulation_steps: 8 (10.0 GiB)"),
        (16, "none", "fits with accumulation_steps: 16 (6.0 GiB)"),
        (
            8,
            "blocks",
            "fits with --force_yml network_g:activation_checkpointing=blocks (10.0 GiB)",
        ),
    ],
)
def test_the_answer_follows_the_options(steps, mode, answer):
    measured = Fit(mode, 1000, STEP, [stage(64, 9)])
    assert report(measured, settings(steps), 12 * GIB, "cpu")[-1] == answer


def test_what_does_not_fit_is_said():
    lines = report(Fit(None, 1000, STEP, [stage(64, 0)]), settings(1), GIB, "cpu")
    assert "not even one fits" in lines[2]
    assert lines[-1].startswith("does not fit: use smaller patches")


def test_the_default_budget_is_nine_tenths_of_what_is_free(monkeypatch, device):
    monkeypatch.setattr(fit, "memory_in_use", lambda device: 5 * GIB)
    monkeypatch.setattr(fit, "available_memory", lambda device: 10 * GIB)
    assert fit.memory_budget(device) == 14 * GIB
    assert fit.memory_budget(device, 3.5) == 3.5 * GIB
    assert math.isclose(fit.memory_budget(device, 24), 24 * GIB)
