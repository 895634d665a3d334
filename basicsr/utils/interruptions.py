"""What can end a run before its time: a request to stop, and a standstill."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

from basicsr.utils.errors import Stopped

DUMP_STACKS = signal.SIGUSR2  # loader workers print their stacks when they receive it
_PATIENCE = 2.0  # seconds within which torchrun and a terminal may pass on one Ctrl-C twice


class StopRequest:
    """Turns SIGTERM, SIGINT and SIGUSR1 (a common choice for Slurm's --signal) into a wish to stop.

    A context manager. `name` is the signal's, None as long as nobody asks. Ctrl-C a second time
    interrupts at once.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._asked = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *failure: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.name is None:
            self.name, self._asked = signal.Signals(number).name, time.monotonic()
            os.write(2, f"\n{self.name}: finishing the step, then saving\n".encode())
        elif number == signal.SIGINT and time.monotonic() - self._asked > _PATIENCE:
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raise Stopped if there is a request."""
        if self.name is not None:
            raise Stopped(self.name)


class Watchdog:
    """Ends the process when nothing has happened for `seconds`: a loader or a collective hangs.

    A context manager. Prints where every thread stands, and exits with code 124.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._last = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self.beat()
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._over.set()
        self._thread.join()

    def beat(self) -> None:
        """Something has happened."""
        self._last = time.monotonic()

    def _watch(self) -> None:
        while not self._over.wait(min(1.0, self.seconds / 10)):
            if time.monotonic() - self._last > self.seconds:
                self._bark()

    def _bark(self) -> None:
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        for child in multiprocessing.active_children():
            if child.pid is not None:
                os.kill(child.pid, DUMP_STACKS)
        time.sleep(1)  # for the children to answer
        print(
            f"error: nothing has happened for {self.seconds:g} seconds; the lines above show where "
            "each thread stands (waiting for files, or for another process of this run); resume "
            "with --auto_resume, and raise train.stall_timeout if a step takes that long",
            file=sys.stderr,
            flush=True,
        )
        os._exit(124)
