"""What a run leaves to read: a log, metrics by iteration as JSON lines, TensorBoard events."""

from __future__ import annotations

import datetime
import json
import logging
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from basicsr.utils.devices import peak_memory_gib
from basicsr.utils.errors import UserError
from basicsr.utils.files import written_whole


class _ThroughTqdm(logging.StreamHandler):
    """Console lines that do not tear a progress bar apart."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)


def start_logging(file: Path | None = None) -> logging.Logger:
    """The project's logger, writing to the console and, with times, to `file`."""
    logger = logging.getLogger("basicsr")
    logger.handlers.clear()
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handlers: list[logging.Handler] = [_ThroughTqdm()]
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(file))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        logger.addHandler(handler)
    return logger


class RunLog:
    """Scalars and pictures of a run, by iteration.

    `metrics.jsonl` has a line for each call of `scalars`. Where a run goes on after iteration
    `done`, what was logged of later ones is dropped, in TensorBoard as well: it is done again.
    """

    def __init__(self, folder: Path, done: int, tensorboard: bool) -> None:
        self.file = folder / "metrics.jsonl"
        self._keep_until(done)
        self.events = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.events = SummaryWriter(str(folder / "tb_logger"), purge_step=done + 1)

    def _keep_until(self, done: int) -> None:
        if not self.file.exists():
            return
        lines = self.file.read_text().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        kept = "".join(line for line in whole if json.loads(line)["iteration"] <= done)
        with written_whole(self.file) as file:
            file.write(kept.encode())

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps({"iteration": iteration, **values}) + "\n")
        if self.events is not None:
            for name, value in values.items():
                self.events.add_scalar(name, value, iteration)

    def picture(self, iteration: int, name: str, image: np.ndarray) -> None:
        """`image`: H x W x 3 uint8."""
        if self.events is not None:
            self.events.add_image(name, image, iteration, dataformats="HWC")

    def close(self) -> None:
        if self.events is not None:
            self.events.close()


class TrainingReport:
    """Collects losses and times over steps; tells their means every so often.

    Losses stay on the device until they are told, so that a step that tells nothing never waits.

    `sums` is what `sums()` gave when the run was interrupted.
    """

    def __init__(
        self, log: RunLog, device: torch.device, total: int, sums: Mapping[str, float]
    ) -> None:
        self.log = log
        self.device = device
        self.total = total
        self._sums: dict[str, float | Tensor] = dict(sums)
        self._start_interval()

    def _start_interval(self) -> None:
        self._started = self._mark = time.perf_counter()
        self._waited = 0.0
        self._timed = self._images = 0

    def data_arrived(self) -> None:
        """Call when the batches of a step have been fetched."""
        self._waited += time.perf_counter() - self._mark

    def step_done(self, losses: Mapping[str, Tensor], images: int) -> None:
        counted: dict[str, float | Tensor] = {**losses, "steps": 1.0}
        for name, value in counted.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._timed += 1
        self._images += images
        self._mark = time.perf_counter()

    def leave_out_pause(self) -> None:
        """Call when what took place since the last step, a validation say, is not to be timed."""
        now = time.perf_counter()
        self._started += now - self._mark
        self._mark = now

    def tell(self, iteration: int, learning_rate: float) -> None:
        """Log means since the last call. Raises UserError where the loss is no finite number."""
        self.require_finite(iteration)
        sums = self.sums()
        steps = sums.pop("steps")
        means = {name: value / steps for name, value in sums.items()}
        seconds = max(time.perf_counter() - self._started, 1e-9)
        remaining = (self.total - iteration) * seconds / self._timed
        scalars = {
            **{f"train/{name}": value for name, value in means.items()},
            "train/learning_rate": learning_rate,
            "time/images_per_second": self._images / seconds,
            "time/waiting_for_data": self._waited / seconds,
            "time/peak_memory_gib": peak_memory_gib(self.device),
        }
        self.log.scalars(iteration, scalars)
        logging.getLogger("basicsr").info(
            "iteration %d/%d  %s  lr %.3g  %.1f images/s  data %.0f%%  ETA %s",
            iteration,
            self.total,
            "  ".join(f"{name} {value:.5f}" for name, value in means.items()),
            learning_rate,
            self._images / seconds,
            100 * self._waited / seconds,
            datetime.timedelta(seconds=round(remaining)),
        )
        self._sums = {}
        self._start_interval()

    def require_finite(self, iteration: int) -> None:
        if not all(math.isfinite(value) for value in self.sums().values()):
            raise UserError(
                f"iteration {iteration}: the loss is no finite number any more; resume from an "
                "earlier state with a lower lr, with clip_grad_norm, or with precision fp32"
            )

    def sums(self) -> dict[str, float]:
        """The losses of the steps that have not been told yet, for a training state."""
        return {name: float(value) for name, value in self._sums.items()}
