"""Loader processes: their number, the memory they share, and a restart when one is killed."""

from __future__ import annotations

import errno
import logging
import mmap
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch.utils.data import DataLoader

from basicsr.utils.errors import UserError

RESTARTS = 3
"""Number of times that killed workers are replaced before an error ends the run."""

logger = logging.getLogger("basicsr")


def usable_workers(wanted: int) -> int:
    """Return `wanted`, or the number of CPU cores of this process if that is less.

    More workers than cores load nothing faster, and PyTorch warns of them.
    """
    has_affinity = hasattr(os, "sched_getaffinity")  # not on macOS
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    if wanted > cores:
        logger.info("loader workers: %d, the number of CPU cores, instead of %d", cores, wanted)
    return min(wanted, cores)


def shared_bytes(rows: int, length: int) -> torch.Tensor:
    """Return `rows` x `length` bytes that loader workers of this process can write to.

    Forked workers inherit an anonymous map, which does not need room in /dev/shm: containers have
    64 MiB there by default.
    """
    if multiprocessing.get_start_method() == "fork":
        return torch.frombuffer(mmap.mmap(-1, rows * length), dtype=torch.uint8).view(rows, length)
    return torch.empty(rows, length, dtype=torch.uint8).share_memory_()


def answers(load: Callable[[int], DataLoader]) -> Iterator[Any]:
    """Yield all items of `load(0)`; after a worker was killed, continue with `load(items so far)`.

    Args:
        load: returns a loader of all items but the first n.

    Raises:
        UserError: workers are killed again and again, or cannot be started.
    """
    yielded = restarts = 0
    while True:
        with _started(load(yielded)) as loaded:
            try:
                for item in loaded:
                    yield item
                    yielded += 1
                return
            except RuntimeError as error:
                # a data set's error is "Caught RuntimeError in DataLoader worker process 0"
                if "DataLoader worker (pid" not in str(error):
                    raise
        restarts += 1
        if restarts > RESTARTS:
            raise UserError(
                f"loader workers were killed {restarts} times, often because memory ran out: lower "
                "num_worker_per_gpu or cache_gib, then resume with --auto_resume"
            )
        logger.warning(
            "a loader worker was killed, often because memory ran out; all are started again "
            "(%d of at most %d times), and the run continues exactly. If it happens again, lower "
            "num_worker_per_gpu or cache_gib",
            *(restarts, RESTARTS),
        )


@contextmanager
def _started(loader: DataLoader) -> Iterator[Iterator[Any]]:
    """Start the workers of a loader, and kill those that are left at the end.

    Only the loader itself notices when one of them dies. PyTorch's handler of SIGCHLD would raise
    an error wherever the main thread is, also in code that catches or swallows it.
    """
    before = multiprocessing.active_children()
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGCHLD)
    workers: list[BaseProcess] = []
    try:
        try:
            loaded: Any = _iterator(loader)
        finally:
            if in_main_thread:
                signal.signal(signal.SIGCHLD, handler)
            workers = [each for each in multiprocessing.active_children() if each not in before]
        if workers:
            loaded._workers_done_event = _EndOfWorkers(loaded._workers_done_event)
        yield loaded
    finally:
        for worker in workers:  # they ignore SIGTERM, and one may wait for a lock of a killed one
            worker.kill()
        for worker in workers:
            worker.join(5)  # one that is blocked on a dead file server ends later


class _EndOfWorkers:
    """A loader's event by which its workers end, set without the lock that they share.

    A worker takes that lock for each item. One that is killed while it holds it would block this
    process for ever: when the loader notices the death, at its end, or in its destructor.
    """

    def __init__(self, shared: Any):
        self.shared, self.happened = shared, False

    def is_set(self) -> bool:
        return self.happened

    def set(self) -> None:
        self.happened = True
        self.shared._flag.release()


def _iterator(loader: DataLoader) -> Iterator[Any]:
    """Return `iter(loader)`. Raises UserError if the system cannot provide for its workers."""
    hook, fault = sys.unraisablehook, None
    # PyTorch's destructor of an iterator that is half built would print a stack trace
    sys.unraisablehook = lambda unraisable: None
    try:
        return iter(loader)
    except OSError as error:
        fault = _no_workers(loader.num_workers, error)
    finally:
        sys.unraisablehook = hook
    raise UserError(fault)


def _no_workers(number: int, error: OSError) -> str:
    remedy = "lower num_worker_per_gpu (0 needs no worker)"
    if error.errno == errno.ENOSPC:
        remedy = f"/dev/shm is full: start the container with a larger --shm-size, or {remedy}"
    return f"the {number} loader workers cannot be started ({error.strerror}); {remedy}"
