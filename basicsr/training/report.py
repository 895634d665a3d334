"""Means of losses and timings between two log lines."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from basicsr.training.run_log import RunLog
from basicsr.utils.devices import peak_memory_gib
from basicsr.utils.distributed import World

logger = logging.getLogger("basicsr")


class TrainingReport:
    """Means of the losses, and timings, since the last log line.

    Losses are summed on the device and read when they are logged or saved.

    Args:
        device: the device of this process.
        total_iter: iterations of the whole run, for the ETA.
        world: the processes of the run.
    """

    def __init__(self, device: torch.device, total_iter: int, world: World | None = None) -> None:
        self.device = device
        self.total_iter = total_iter
        self.world = world or World()
        self._sums: dict[str, float | Tensor] = {}
        self._negative_explained = False
        self._start_interval()

    def _start_interval(self) -> None:
        self._started = self._last_mark = time.perf_counter()
        self._waited = 0.0
        self._steps = self._images = 0

    def data_arrived(self) -> None:
        """Mark that the batches of a step have been fetched."""
        self._waited += time.perf_counter() - self._last_mark

    def step_done(self, losses: Mapping[str, Tensor], finite: Tensor, images: int) -> None:
        """Add a step of `images` images; its losses do not count if the step was skipped."""
        for name, value in losses.items():
            self._add(name, torch.where(finite, value, 0.0))
        self._add("steps", finite.float())
        self._steps += 1
        self._images += images
        self._last_mark = time.perf_counter()

    def _add(self, name: str, value: Tensor) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + value

    def leave_out_pause(self) -> None:
        """Exclude the time since the last step from the timings, for example of a validation."""
        now = time.perf_counter()
        self._started += now - self._last_mark
        self._last_mark = now

    def write(
        self, log: RunLog | None, iteration: int, learning_rate: float, counts: Mapping[str, int]
    ) -> None:
        """Log the means since the last call, and start again from zero. Collective.

        Args:
            log: the run's log; None in all processes but the main one.
            iteration: number of steps done.
            learning_rate: learning rate of the last step.
            counts: further numbers to log, by name.
        """
        means = self._means()
        seconds = max(time.perf_counter() - self._started, 1e-9)
        images_per_second = self._images * self.world.size / seconds
        waiting = self._waited / seconds
        if log is not None:
            training = {**means, "learning_rate": learning_rate, **counts}
            log.scalars(
                iteration,
                {
                    **{f"train/{name}": value for name, value in training.items()},
                    "time/images_per_second": images_per_second,
                    "time/waiting_for_data": waiting,
                    "time/peak_memory_gib": peak_memory_gib(self.device),
                },
            )
        remaining = (self.total_iter - iteration) * seconds / self._steps
        logger.info(
            "iteration %d/%d  %s  lr %.3g  %.1f images/s  data %.0f%%  ETA %s",
            iteration,
            self.total_iter,
            "  ".join(f"{name} {value:.5f}" for name, value in means.items()),
            learning_rate,
            images_per_second,
            100 * waiting,
            datetime.timedelta(seconds=round(remaining)),
        )
        if means.get("loss", 0.0) < 0 and not self._negative_explained:
            logger.info(
                "a negative loss is right with PSNRLoss (-PSNR / 10) and SSIMLoss (-SSIM): the "
                "lower, the better"
            )
            self._negative_explained = True
        self._sums = {}
        self._start_interval()

    def _means(self) -> dict[str, float]:
        sums = self.state_dict()
        steps = sums.pop("steps", 0.0)
        return {name: value / steps for name, value in sums.items()} if steps else {}

    def state_dict(self) -> dict[str, float]:
        """Return the sums that have not been logged, for a training state. Collective."""
        names = list(self._sums)
        totals = self.world.sum([float(value) for value in self._sums.values()])
        means = [total / self.world.size for total in totals]
        # Continue from the rounded values, as a resumed run does.
        self._sums = dict(zip(names, means, strict=True))
        return dict(zip(names, means, strict=True))

    def load_state_dict(self, sums: Mapping[str, float]) -> None:
        """Continue from `state_dict`."""
        self._sums = dict(sums)
