"""The process that restores the photographs of the web page.

It has a limit of memory, and may be ended at any time: neither a photograph that needs too much
memory nor a library that crashes on a broken file takes the page down.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tqdm import tqdm

from basicsr.utils.errors import UserError

if TYPE_CHECKING:
    from basicsr.page.restoring import Restored


@dataclass(frozen=True)
class WorkerSettings:
    """Settings of the restoring process.

    Args:
        folder: folder of the page, which is removed if the page was killed.
        device: "auto", "cuda" or "cpu".
        precision: "fp32" or "bf16".
        memory_gib: on a CPU, memory that the process may allocate beside that of the libraries; on
            a GPU, budget for tensors. None for half of the free memory, and for all of a GPU's.
        max_megapixels: larger photographs are refused.
    """

    folder: Path
    device: str = "auto"
    precision: str = "fp32"
    memory_gib: float | None = None
    max_megapixels: float = 64


class Request(NamedTuple):
    """Photograph to restore with the network in the file `weights`, into the folder `out`."""

    source: Path
    weights: Path
    out: Path


class Worker:
    """Process that restores one photograph after the other."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self._process: multiprocessing.context.SpawnProcess | None = None
        self._lock = threading.Lock()

    def restore(self, request: Request, interval: float = 1.0) -> Iterator[float | Restored]:
        """Yield the elapsed seconds at each interval, and finally the result.

        If the iterator is closed early, the process is ended; the next call starts another one.

        Raises UserError if the photograph or the weights cannot be used, or if the process died.
        """
        with self._lock:
            connection = self.start()
            complete = False
            try:
                began = time.monotonic()
                connection.send(request)
                while not connection.poll(interval):
                    yield time.monotonic() - began
                answer = connection.recv()
                complete = True
            except (EOFError, ConnectionError):
                raise UserError(
                    f"{request.source.name}: the process that restores it was killed or crashed, "
                    "mostly for lack of memory; try a smaller version, or save it anew as PNG"
                ) from None
            finally:
                if not complete:
                    self.stop()
        if isinstance(answer, str):
            raise UserError(answer)
        yield answer

    def stop(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None

    def start(self) -> Connection:
        """Start the process, unless it runs; return the connection to it."""
        if self._process is None or not self._process.is_alive():
            self._connection, theirs = multiprocessing.Pipe()
            context = multiprocessing.get_context("spawn")  # threads and CUDA do not survive a fork
            self._process = context.Process(
                target=serve, args=(theirs, self.settings), daemon=True, name="restoring"
            )
            self._process.start()
            theirs.close()  # so that the death of the process ends `recv`
        return self._connection


def serve(connection: Connection, settings: WorkerSettings) -> None:
    """Answer each request with a `Restored`, or with the message of a UserError."""
    threading.Thread(target=_clean_after_parent, args=(settings.folder,), daemon=True).start()
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which outlives a killed process
    from basicsr.page.restoring import PageRestorer  # here: it imports PyTorch

    restorer = PageRestorer(settings)
    while True:
        try:
            request = connection.recv()
        except EOFError:  # the page has ended
            return
        try:
            answer: Restored | str = restorer(request)
        except UserError as error:
            # the user knows the file by its name, not by its place on this machine
            answer = str(error).replace(f"{request.source.parent}/", "")
            answer = answer.replace(f"{request.weights.parent}/", "")
        connection.send(answer)


def limit_memory(gib: float) -> None:
    """Let this process allocate `gib` GiB more than now; allocations beyond that fail."""
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    limit = pages * resource.getpagesize() + int(gib * 2**30)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _clean_after_parent(folder: Path) -> None:
    """Wait for the page's process to end; then remove its folder, and end this process."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)
