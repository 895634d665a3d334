"""Learning-rate schedules as functions of the iteration, so that a resumed run needs no state.

Each is called with the iteration (from 0) and the optimizer's base rate, and returns the rate.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable

from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import SCHEDULER_REGISTRY

Schedule = Callable[[int, float], float]


@SCHEDULER_REGISTRY.register
class MultiStepLR:
    """The base rate, multiplied by `gamma` from each of the `milestones` (iterations) on."""

    def __init__(self, milestones: tuple[int, ...], gamma: float = 0.1) -> None:
        self.milestones = sorted(milestones)
        self.gamma = gamma

    def __call__(self, iteration: int, base_lr: float) -> float:
        return base_lr * self.gamma ** bisect.bisect_right(self.milestones, iteration)


@SCHEDULER_REGISTRY.register
class CosineAnnealingRestartCyclicLR:
    """One cosine per period, each down to its own minimum (Restormer's `eta_mins`).

    Restormer's own schedule is periods [92000, 208000], weights [1, 1], minima [3e-4, 1e-6]: the
    first "cosine" ends where it starts and is constant. A single minimum serves every period, which
    is BasicSR's CosineAnnealingRestartLR. After the last period the rate stays at its minimum.
    """

    def __init__(
        self,
        periods: tuple[int, ...],
        restart_weights: tuple[float, ...] = (1.0,),
        eta_mins: tuple[float, ...] = (0.0,),
    ) -> None:
        if not periods:
            raise OptionsError("train.scheduler.periods: none is given; at least one is needed")
        self.ends = list(itertools.accumulate(periods))
        self.periods = periods
        self.weights = _one_each("restart_weights", restart_weights, len(periods))
        self.minima = _one_each("eta_mins", eta_mins, len(periods))

    def __call__(self, iteration: int, base_lr: float) -> float:
        if iteration >= self.ends[-1]:
            return self.minima[-1]
        cycle = bisect.bisect_right(self.ends, iteration)
        within = iteration - (self.ends[cycle] - self.periods[cycle])
        falling = 0.5 * (1 + math.cos(math.pi * within / self.periods[cycle]))
        low = self.minima[cycle]
        return low + self.weights[cycle] * (base_lr - low) * falling


@SCHEDULER_REGISTRY.register
class CosineAnnealingRestartLR(CosineAnnealingRestartCyclicLR):
    """Cosine annealing with restarts, down to one common minimum `eta_min` (as in BasicSR)."""

    def __init__(
        self,
        periods: tuple[int, ...],
        restart_weights: tuple[float, ...] = (1.0,),
        eta_min: float = 0.0,
    ) -> None:
        super().__init__(periods, restart_weights, (eta_min,))


def warmed_up(schedule: Schedule, iterations: int) -> Schedule:
    """`schedule`, reached from zero along a straight line over the first `iterations`."""
    if iterations == 0:
        return schedule
    return lambda iteration, base_lr: (
        schedule(iteration, base_lr) * min(1.0, (iteration + 1) / iterations)
    )


def _one_each(name: str, values: tuple[float, ...], periods: int) -> tuple[float, ...]:
    if len(values) not in (1, periods):
        raise OptionsError(
            f"{name}: {len(values)} values for {periods} periods; give one, or one each"
        )
    return values * periods if len(values) == 1 else values
