"""Early ends of a run: a signal that asks it to stop, and a watchdog for stalled runs."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any

from basicsr.utils.errors import Stopped

DUMP_STACKS = signal.SIGUSR2  # loader workers print their stacks when they receive it
# One Ctrl-C can arrive twice, from the terminal and from torchrun, within this many seconds
_REPEAT_WINDOW = 2.0


def exit_on_signals(*, interrupts: bool = True) -> None:
    """End the process at once, with one line, on SIGTERM and SIGUSR1 (code 75) and Ctrl-C (130).

    Entry points call it before they import PyTorch, which takes seconds. It is for times at which
    there is nothing to save: the imports, the set-up of a run, and programs that leave complete
    files only. Later a StopRequest replaces it. `interrupts=False` leaves Ctrl-C as it is.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone has handlers
        return
    for number in (signal.SIGTERM, signal.SIGUSR1, *([signal.SIGINT] if interrupts else [])):
        signal.signal(number, _exit_now)


def _exit_now(number: int, frame: FrameType | None) -> None:
    """Leave without unwinding: an exception could be swallowed by a destructor or an import."""
    with suppress(Exception):  # the signal may have come while a stream was being written to
        sys.stdout.flush()
    interrupted = number == signal.SIGINT
    line = "interrupted" if interrupted else f"stopped by {signal.Signals(number).name}"
    after_a_bar = "\n" if os.isatty(2) else ""
    os.write(2, f"{after_a_bar}error: {line}; start the same command again\n".encode())
    os._exit(130 if interrupted else 75)


def interrupt_by_exception() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again, for programs that tidy up when it arrives."""
    if signal.getsignal(signal.SIGINT) is _exit_now:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class StopRequest:
    """Context manager that records SIGTERM, SIGINT and SIGUSR1 as a request to stop.

    SIGUSR1 is a common choice for Slurm's --signal. `name` is the name of the received signal, or
    None. A second Ctrl-C interrupts at once.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._received = 0.0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            self._previous[number] = signal.signal(number, self._record)
        return self

    def __exit__(self, *failure: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _record(self, number: int, frame: FrameType | None) -> None:
        if self.name is None:
            self.name, self._received = signal.Signals(number).name, time.monotonic()
            os.write(2, f"\n{self.name}: stopping after this step, saving first\n".encode())
        elif number == signal.SIGINT and time.monotonic() - self._received > _REPEAT_WINDOW:
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raise Stopped if a stop was requested."""
        if self.name is not None:
            raise Stopped(self.name)


class Watchdog:
    """Context manager that ends the process if `beat` is not called for `seconds`.

    This happens when a loader or a collective hangs. The watchdog prints the stacks of all threads
    and loader workers, and exits with code 124.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._last = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self.beat()
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._done.set()
        self._thread.join()

    def beat(self) -> None:
        """Report progress."""
        self._last = time.monotonic()

    def _watch(self) -> None:
        while not self._done.wait(min(1.0, self.seconds / 10)):
            if time.monotonic() - self._last > self.seconds:
                self._end()

    def _end(self) -> None:
        import multiprocessing  # here, so that `exit_on_signals` is ready early

        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        for child in multiprocessing.active_children():
            if child.pid is not None:
                os.kill(child.pid, DUMP_STACKS)
        time.sleep(1)  # let the children print their stacks
        print(
            f"error: no progress for {self.seconds:g} seconds; the stacks above show what each "
            "thread waits for (files, or another process of this run); resume with --auto_resume, "
            "and raise train.stall_timeout if a step takes that long",
            file=sys.stderr,
            flush=True,
        )
        os._exit(124)
