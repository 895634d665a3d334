"""Learning-rate schedules as functions of the iteration, which need no state to resume.

A schedule maps the iteration (from 0) and the optimizer's base learning rate to a learning rate.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from basicsr.utils.errors import OptionsError
from basicsr.utils.ranges import Factor, LearningRate, NotNegative, Positive
from basicsr.utils.registry import SCHEDULER_REGISTRY

LearningRateSchedule = Callable[[int, float], float]


@SCHEDULER_REGISTRY.register
class MultiStepLR:
    """Base rate, multiplied by `gamma` at each of the `milestones`, which are iterations."""

    def __init__(
        self,
        milestones: tuple[NotNegative, ...],
        gamma: Annotated[float, Field(gt=0)] = 0.1,
    ) -> None:
        try:
            gamma ** len(milestones)
        except OverflowError:
            raise OptionsError(
                f"gamma: {gamma} ** {len(milestones)} is infinite; reduce it"
            ) from None
        self.milestones = sorted(milestones)
        self.gamma = gamma

    def __call__(self, iteration: int, base_lr: float) -> float:
        return base_lr * self.gamma ** bisect.bisect_right(self.milestones, iteration)


@SCHEDULER_REGISTRY.register
class CosineAnnealingRestartCyclicLR:
    """Cosine annealing with restarts, each period with its own minimum (Restormer).

    Restormer is trained with periods [92000, 208000], weights [1, 1] and minima [3e-4, 1e-6]: its
    base rate is 3e-4, so the rate is constant in the first period. After the last period the rate
    stays at its minimum.

    Args:
        periods: iterations of each period.
        restart_weights: factor of the base rate at the start of each period, or one for all.
        eta_mins: minimum of each period, or one for all.
    """

    def __init__(
        self,
        periods: Annotated[tuple[Positive, ...], Field(min_length=1)],
        restart_weights: tuple[Factor, ...] = (1.0,),
        eta_mins: tuple[LearningRate, ...] = (0.0,),
    ) -> None:
        if not periods:
            raise OptionsError("periods: give at least one period")
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
    """Cosine annealing with restarts and one minimum `eta_min` for all periods (BasicSR)."""

    def __init__(
        self,
        periods: Annotated[tuple[Positive, ...], Field(min_length=1)],
        restart_weights: tuple[Factor, ...] = (1.0,),
        eta_min: LearningRate = 0.0,
    ) -> None:
        super().__init__(periods, restart_weights, (eta_min,))


def warmed_up(schedule: LearningRateSchedule, iterations: int) -> LearningRateSchedule:
    """Return `schedule` with a linear warm-up from zero over the first `iterations`."""
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
