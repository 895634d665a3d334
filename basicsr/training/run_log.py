"""What a run leaves to read: a log, metrics by iteration as JSON lines, TensorBoard events."""

from __future__ import annotations

import datetime
import functools
import importlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from basicsr.utils.devices import peak_memory_gib
from basicsr.utils.distributed import World
from basicsr.utils.errors import OptionsError
from basicsr.utils.files import atomic_write


class RunLog:
    """Scalars and pictures of a run, by iteration, in its folder.

    `metrics.jsonl` has a line for each call of `scalars`. Where a run goes on after iteration
    `done`, what was logged of later ones is dropped, in TensorBoard as well: it is done again, and
    so is the validation of that iteration unless it was `validated`.
    A full disk is no reason to stop: lines wait until there is room, events and pictures are lost.
    `wandb_project` sends the scalars and pictures to Weights & Biases too.
    """

    def __init__(
        self,
        folder: Path,
        done: int,
        tensorboard: bool,
        wandb_project: str | None = None,
        validated: bool = True,
    ) -> None:
        self.folder = folder
        self.file = folder / "metrics.jsonl"
        self._waiting = ""
        self._keep_until(done, validated)
        self._events = _TensorBoard(folder / "tb_logger", done) if tensorboard else None
        self._wandb = None
        if wandb_project is not None:
            self._wandb = _start_wandb(wandb_project, folder)

    def _keep_until(self, done: int, validated: bool) -> None:
        if not self.file.exists():
            return
        with self.file.open("rb") as lines:
            kept = [line for line in lines if _is_done(line, done, validated)]
        with atomic_write(self.file) as file:
            file.write(b"".join(kept))

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        self._waiting += json.dumps({"iteration": iteration, **values}) + "\n"
        with _disk_may_be_full("metrics wait in memory"):
            _append(self.file, self._waiting)
            self._waiting = ""
        if self._events is not None:
            for name, value in values.items():
                self._events.write("add_scalar", name, value, iteration)
        if self._wandb is not None:
            self._wandb.log(dict(values), step=iteration)

    def picture(self, iteration: int, name: str, image: np.ndarray) -> None:
        """`image`: H x W x 3 uint8; also written to `samples/ITERATION.png`."""
        with _disk_may_be_full("a sample picture is lost"):
            file = self.folder / "samples" / f"{iteration:08d}.png"
            file.parent.mkdir(exist_ok=True)
            with atomic_write(file) as content:
                Image.fromarray(image).save(content, "PNG")
        if self._events is not None:
            self._events.write("add_image", name, image, iteration, dataformats="HWC")
        if self._wandb is not None:
            self._wandb.log({name: _wandb_module().Image(image)}, step=iteration)

    def close(self) -> None:
        if self._events is not None:
            self._events.write("close")
        if self._wandb is not None:
            self._wandb.finish()


def _is_done(line: bytes, done: int, validated: bool) -> bool:
    """Whether a line is of what need not be done again; one that a crash has torn never is."""
    try:
        values = json.loads(line)
        iteration = values["iteration"]
    except (ValueError, KeyError, TypeError):
        return False
    if iteration == done and not validated:
        return not any(name.startswith("val/") for name in values)
    return line.endswith(b"\n") and iteration <= done


class _TensorBoard:
    """TensorBoard's events; after a failure of the disk, a new file of them is begun."""

    def __init__(self, folder: Path, done: int) -> None:
        self._open = functools.partial(_summary_writer(), str(folder))
        self._writer = self._open(purge_step=done + 1)

    def write(self, method: str, *arguments: Any, **more: Any) -> None:
        with _disk_may_be_full("TensorBoard's events are lost"):
            if self._writer is None:
                self._writer = self._open()
            try:
                getattr(self._writer, method)(*arguments, **more)
            except OSError:
                self._writer = None
                raise


@contextmanager
def _disk_may_be_full(consequence: str) -> Iterator[None]:
    """Logs are not worth a run: where the disk refuses to write, say so and go on."""
    try:
        yield
    except OSError as error:
        logging.getLogger("basicsr").warning("%s: %s", error.strerror, consequence)


def _append(file: Path, text: str) -> None:
    """Append all of `text` or nothing."""
    before = file.stat().st_size if file.exists() else 0
    try:
        with file.open("a") as opened:
            opened.write(text)
    except OSError:
        if file.exists():
            os.truncate(file, before)
        raise


def _summary_writer() -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter


def _start_wandb(project: str, folder: Path) -> Any:
    wandb, name = _wandb_module(), folder.name
    try:
        return wandb.init(project=project, name=name, id=name, dir=folder, resume="allow")
    except wandb.Error as error:  # no account, no network
        reason = " ".join(str(error).split())
        raise OptionsError(
            f"logger.wandb_project: {reason} (WANDB_MODE=offline keeps everything on disk)"
        ) from None


def _wandb_module() -> Any:
    try:
        return importlib.import_module("wandb")
    except ImportError:
        raise OptionsError(
            "logger.wandb_project: the package wandb is not installed; pip install wandb"
        ) from None


class TrainingReport:
    """Collects losses and times over steps; tells their means every so often.

    Losses stay on the device until they are told.

    `log` is None in all processes but the main one; `sums` is what `sums()` gave when the run was
    interrupted.
    """

    def __init__(
        self,
        log: RunLog | None,
        device: torch.device,
        total: int,
        sums: Mapping[str, float],
        world: World | None = None,
    ) -> None:
        self.log = log
        self.device = device
        self.total = total
        self.world = world or World()
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
        """Count a step; one that was skipped has no `losses`."""
        counted: dict[str, float | Tensor] = {**losses, "steps": 1.0} if losses else {}
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

    def tell(self, iteration: int, learning_rate: float, **counts: int) -> None:
        """Log means since the last call, and `counts` of what went wrong. Collective."""
        sums = self.sums()
        steps = sums.pop("steps", 0.0)
        means = {name: value / steps for name, value in sums.items()}
        seconds = max(time.perf_counter() - self._started, 1e-9)
        images = self._images * self.world.size / seconds
        if self.log is not None:
            scalars = {
                **{f"train/{name}": value for name, value in means.items()},
                "train/learning_rate": learning_rate,
                **{f"train/{name}": count for name, count in counts.items()},
                "time/images_per_second": images,
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
            images,
            100 * self._waited / seconds,
            datetime.timedelta(seconds=round((self.total - iteration) * seconds / self._timed)),
        )
        self._sums = {}
        self._start_interval()

    def sums(self) -> dict[str, float]:
        """The losses of the steps that have not been told yet, for a training state. Collective."""
        names = list(self._sums)
        totals = self.world.sum([float(self._sums[name]) for name in names])
        means = [total / self.world.size for total in totals]
        self._sums = dict(zip(names, means, strict=True))  # as a resumed run will have them
        return dict(zip(names, means, strict=True))
