"""Writing files while training goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from basicsr.utils.errors import UserError

logger = logging.getLogger(__name__)

Job = Callable[[], object]
_PAUSE = 5.0  # seconds between attempts when nothing is left to do but to write


class _Task(NamedTuple):
    job: Job
    outcome: Future


class BackgroundWriter:
    """Does writing jobs one after the other in a thread.

    A job that fails for the disk's sake (OSError) is kept and tried again, until a newer one of the
    same name takes its place. The process does not end before the running job has.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "writer")
        self._tasks: dict[str, _Task] = {}

    def submit(self, name: str, job: Job) -> None:
        """Do `job` soon. Waits as long as an earlier one of that `name` is being done."""
        if name in self._tasks:
            self._tasks.pop(name).outcome.exception()
        self._tasks[name] = _Task(job, self._executor.submit(job))

    def retry(self) -> None:
        """Warn of what has failed, and try it again. Raises what no other disk would mend."""
        for name, (job, outcome) in list(self._tasks.items()):
            if not outcome.done():
                continue
            error = outcome.exception()
            if error is None:
                del self._tasks[name]
            elif isinstance(error, OSError):
                logger.error(
                    "THE %s COULD NOT BE SAVED (%s: %s). The run goes on and tries again: make "
                    "room on the disk. The last complete checkpoint is kept.",
                    *(name.upper(), error.filename, error.strerror),
                )
                self._tasks[name] = _Task(job, self._executor.submit(job))
            else:
                raise error

    def finish(self, patience: float) -> None:
        """Wait for all jobs; try again, for `patience` seconds, those that fail.

        Raises UserError where something cannot be written.
        """
        until = time.monotonic() + patience
        while failures := [e for task in self._tasks.values() if (e := task.outcome.exception())]:
            if time.monotonic() > until:
                raise UserError(
                    f"not everything could be saved ({failures[0]}); the last complete checkpoint "
                    "is kept: make room on the disk, then resume with --auto_resume"
                )
            self.retry()
            time.sleep(min(_PAUSE, patience))
