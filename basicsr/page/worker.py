"""The process that restores the photographs of the web page.

It has a limit of memory, and may be ended at any time: neither a photograph that needs too much
memory nor a library that crashes on a broken file takes the page down.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path

from tqdm import tqdm

from basicsr.page.messages import Request, Restored, Step, WorkerSettings
from basicsr.utils.errors import UserError, write_for_page


class Worker:
    """Process that restores one photograph after the other; a context manager that ends it."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self._process: multiprocessing.context.SpawnProcess | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Worker:
        self.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()

    def restore(self, request: Request, interval: float = 1.0) -> Iterator[Step | Restored]:
        """Yield a step at least once per interval, and finally the result.

        If the iterator is closed early, the process is ended; the next call starts another one.

        Raises UserError if the photograph or the weights cannot be used, or if the process died.
        """
        with self._lock:
            connection = self.start()
            complete = False
            try:
                began = time.monotonic()
                answer: float | str | Restored = 0.0
                connection.send(request)
                while isinstance(answer, float):
                    if connection.poll(interval):
                        answer = connection.recv()
                    if isinstance(answer, float):
                        yield Step(time.monotonic() - began, answer)
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
    """Answer each request with parts in [0, 1], then a `Restored` or the message of an error."""
    threading.Thread(target=_clean_after_parent, args=(settings.folder,), daemon=True).start()
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which outlives a killed process
    from basicsr.page.restoring import PageRestorer  # here: it imports PyTorch

    write_for_page()
    restorer = PageRestorer(settings)
    while True:
        try:
            request = connection.recv()
        except EOFError:  # the page has ended
            return
        try:
            answer: Restored | str = restorer(request, connection.send)
        except UserError as error:
            answer = str(error)
            for file in (request.source, *request.weights):  # known to the user by its name only
                answer = answer.replace(f"{file.parent}/", "")
        except OSError as error:  # a full disk
            answer = f"{request.source.name}: cannot be written ({error.strerror})"
        connection.send(answer)


def _clean_after_parent(folder: Path) -> None:
    """Wait for the page's process to end; then remove its folder, and end this process."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)
