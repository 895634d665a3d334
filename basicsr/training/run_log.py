"""Metrics and sample pictures of a run: JSON lines, TensorBoard events, Weights & Biases."""

from __future__ import annotations

import functools
import importlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from basicsr.utils.errors import OptionsError
from basicsr.utils.files import atomic_write

VALIDATION = re.compile(r"val(_\d+)?/")  # scores of datasets.val, datasets.val_2, ...


class RunLog:
    """Scalars and pictures of a run, by iteration, in its folder.

    `metrics.jsonl` has a line for each call of `scalars`. A full disk does not end the run: lines
    wait until there is room, TensorBoard events and pictures are lost.

    Args:
        folder: the run's folder.
        done: the iteration after which the run continues. What was logged of later iterations is
            dropped, in TensorBoard too, as they are done again.
        tensorboard: also write TensorBoard events.
        wandb_project: also send scalars and pictures to this project of Weights & Biases.
        validated: the validation of iteration `done` is complete; otherwise its scores are dropped.
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
            kept = [line for line in lines if _is_to_keep(line, done, validated)]
        with atomic_write(self.file) as file:
            file.write(b"".join(kept))

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        """Log values by name."""
        self._waiting += json.dumps({"iteration": iteration, **values}) + "\n"
        with _disk_may_be_full("metrics wait in memory"):
            _append(self.file, self._waiting)
            self._waiting = ""
        if self._events is not None:
            for name, value in values.items():
                self._events.write("add_scalar", name, value, iteration)
        if self._wandb is not None:
            self._wandb.log(dict(values), step=iteration)

    def picture(self, iteration: int, name: str, image: np.ndarray, suffix: str = "") -> None:
        """Log an H x W x 3 uint8 image, and write it to `samples/ITERATION{suffix}.png`."""
        with _disk_may_be_full("a sample picture is lost"):
            file = self.folder / "samples" / f"{iteration:08d}{suffix}.png"
            file.parent.mkdir(exist_ok=True)
            with atomic_write(file) as content:
                Image.fromarray(image).save(content, "PNG")
        if self._events is not None:
            self._events.write("add_image", name, image, iteration, dataformats="HWC")
        if self._wandb is not None:
            self._wandb.log({name: _wandb_module().Image(image)}, step=iteration)

    def close(self) -> None:
        """Close the event file and the connection to Weights & Biases."""
        if self._events is not None:
            self._events.write("close")
        if self._wandb is not None:
            self._wandb.finish()


def _is_to_keep(line: bytes, done: int, validated: bool) -> bool:
    """Return whether a line is complete, and logs something that is not done again."""
    try:
        values = json.loads(line)
        iteration = values["iteration"]
    except (ValueError, KeyError, TypeError):
        return False
    if iteration == done and not validated:
        return not any(VALIDATION.match(name) for name in values)
    return line.endswith(b"\n") and iteration <= done


class _TensorBoard:
    """Writer of TensorBoard events, which starts a new file after a disk error."""

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
    """Warn of a disk error instead of ending the run for a log."""
    try:
        yield
    except OSError as error:
        logging.getLogger("basicsr").warning("%s: %s", error.strerror, consequence)


def _append(file: Path, text: str) -> None:
    """Append all of `text` to the file, or nothing."""
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
