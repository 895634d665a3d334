"""Processes that read fuzzed inputs one by one, watched for their time and memory."""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch

from basicsr.utils.devices import is_out_of_memory
from basicsr.utils.errors import UserError
from fuzzing.base import Target

OUTCOMES = ("ok", "error", "unclear", "trace", "hang", "memory", "crash")
FAULTS = OUTCOMES[2:]
_INTERVAL = 0.05  # seconds between two looks at a process
_WAITING = 10  # times the limit of CPU time, for an input that waits
_LONGEST = 5000  # characters of a message


class Limits(NamedTuple):
    """CPU seconds that reading an input may take, and GiB beyond those of the idle process."""

    seconds: float
    gib: float


class Reader:
    """A process that makes and reads inputs of one kind.

    Args:
        kind: module with the TARGET.
        folder: an empty folder for its inputs.
        limits: time and memory of an input.
    """

    def __init__(self, kind: str, folder: Path, limits: Limits) -> None:
        self.kind, self.folder, self.limits = kind, folder, limits
        self._start()

    def _start(self) -> None:
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(
            target=_serve, args=(theirs, self.kind, str(self.folder)), daemon=True
        )
        self.process.start()
        theirs.close()
        self.pipe = ours
        self.pipe.recv()  # it is ready
        self.idle = self._memory()

    def read(self, seed: str) -> tuple[str, str]:
        """Make and read the input of `seed`; return the outcome and its description."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.pipe.send(seed)
        begin, used, outcome = time.monotonic(), self._cpu_seconds(), ""
        while not outcome:
            try:
                if self.pipe.poll(_INTERVAL):
                    return self.pipe.recv()
            except (EOFError, ConnectionResetError):
                self.process.join()
                outcome = "crash"
            if self._memory() - self.idle > self.limits.gib:
                outcome = "memory"
            elif (
                self._cpu_seconds() - used > self.limits.seconds
                or time.monotonic() - begin > _WAITING * self.limits.seconds
            ):
                outcome = "hang"
        code = self.process.exitcode
        self.stop()
        self._start()
        return outcome, f"exit code {code}" if outcome == "crash" else ""

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def _cpu_seconds(self) -> float:
        """Return the CPU time of the process, which other programs do not lengthen."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _memory(self) -> float:
        """Return the resident memory of the process in GiB."""
        try:
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0.0
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


def _serve(pipe: Connection, kind: str, folder: str) -> None:
    """Read inputs until the pipe is closed. Runs in a process of its own."""
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
    logging.disable()
    torch.set_num_threads(1)
    target: Target = importlib.import_module(kind).TARGET
    pipe.send("ready")
    while True:
        try:
            seed = pipe.recv()
        except EOFError:
            return
        pipe.send(outcome_of(target, seed, Path(folder)))


def outcome_of(target: Target, seed: str, folder: Path) -> tuple[str, str]:
    """Make and read an input in this process; return the outcome and its description."""
    rng = random.Random(seed)
    path = target.make(rng, folder)
    try:
        target.read(path, rng)
    except UserError as error:
        return ("error" if _clear(str(error), path) else "unclear"), str(error)[:_LONGEST]
    except OSError as error:  # commands print it in one line
        return "error", str(error)
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):  # likewise
            return "error", str(error)
        return "trace", traceback.format_exc()
    except Exception:
        return "trace", traceback.format_exc()
    return "ok", ""


def _clear(message: str, path: Path) -> bool:
    """Return whether each line of a message names where it is, and the message is not endless."""
    lines = message.split("\n")
    named = all(": " in line and "object at 0x" not in line for line in lines)
    where = str(path) in message or message.startswith(("--force_yml ", "weights '"))
    return named and len(message) < _LONGEST and where


class Plan(NamedTuple):
    """Inputs to read: for `seconds` and up to `inputs` of each kind, from `seed`."""

    kinds: list[str]
    seconds: float
    inputs: int
    seed: int


def run(plan: Plan, limits: Limits, folder: Path, workers: int) -> dict[str, Counter[str]]:
    """Fuzz the kinds side by side, and keep the inputs with faults in `folder`.

    Args:
        plan: the inputs.
        limits: time and memory of an input.
        folder: where inputs with faults are kept, each with a text that describes it.
        workers: processes for each kind.

    Returns:
        The number of inputs by kind and outcome.
    """
    end = time.monotonic() + plan.seconds
    with ThreadPoolExecutor(workers * len(plan.kinds)) as threads:
        shares = {
            (kind, first): threads.submit(
                _share, plan, kind, range(first, plan.inputs, workers), end, limits, folder
            )
            for kind in plan.kinds
            for first in range(workers)
        }
    counts = {kind: Counter(dict.fromkeys(OUTCOMES, 0)) for kind in plan.kinds}
    for (kind, _), share in shares.items():
        counts[kind].update(share.result())
    return counts


def _share(
    plan: Plan, kind: str, numbers: Iterable[int], end: float, limits: Limits, folder: Path
) -> Counter[str]:
    """Fuzz some of the inputs of a kind with one process."""
    counts: Counter[str] = Counter()
    inputs = Path(tempfile.mkdtemp(prefix=f"fuzz-{kind}-"))
    reader = Reader(f"fuzzing.{kind}", inputs / "input", limits)
    try:
        for number in numbers:
            if time.monotonic() > end:
                break
            outcome, text = reader.read(f"{plan.seed}/{kind}/{number}")
            counts[outcome] += 1
            if outcome in FAULTS:
                _keep(reader, folder / f"{kind}-{plan.seed}-{number}-{outcome}", text)
    finally:
        reader.stop()
        shutil.rmtree(inputs, ignore_errors=True)
    return counts


def _keep(reader: Reader, kept: Path, text: str) -> None:
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(reader.folder, kept, symlinks=True)
    (kept / "outcome.txt").write_text(f"{text}\n")
    print(f"{kept}: {text.strip().splitlines()[-1] if text.strip() else kept.name}", flush=True)
