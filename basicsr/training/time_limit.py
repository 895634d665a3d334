"""Time limit of a run: when it ends, and the learning rates until then."""

from __future__ import annotations

import time
from typing import Literal

from basicsr.utils.distributed import World


class TrainingClock:
    """Time that a run has taken, counted over its restarts, and its limit.

    The clock of the main process counts, as all processes must end after the same step and use the
    same learning rates. `seconds` is the time at the last reading.

    Args:
        limit: seconds after which the run ends, or None.
        world: the processes of the run.
        clock: "wall", or "cpu" for the processor time of all threads of the process.
    """

    def __init__(
        self, limit: float | None, world: World, clock: Literal["wall", "cpu"] = "wall"
    ) -> None:
        self.limit = limit
        self.world = world
        self.seconds = 0.0
        self._now = time.process_time if clock == "cpu" else time.monotonic
        self._started = self._now()

    def start(self) -> None:
        """Continue to count from `seconds`."""
        self._started = self._now() - self.seconds

    def read(self) -> None:
        """Update `seconds`. Collective if there is a limit."""
        seconds = self._now() - self._started
        if self.limit is not None:
            (seconds,) = self.world.sum([seconds if self.world.is_main else 0.0])
        self.seconds = seconds

    @property
    def is_up(self) -> bool:
        """Whether the limit is reached."""
        return self.limit is not None and self.seconds >= self.limit

    def scheduled(self, iteration: int, total: int) -> int:
        """Return the iteration (from 0) whose learning rate is due after `iteration` of `total`.

        A run too slow to reach `total` within the limit skips through its schedule, so that the
        learning rate has decayed when the time is up.
        """
        if self.limit is None:
            return iteration
        share = min(self.seconds / self.limit, 1.0)
        return max(iteration, min(int(share * total), total - 1))
