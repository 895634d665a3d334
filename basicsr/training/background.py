"""Writing files in the background of training."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from basicsr.utils.errors import UserError

logger = logging.getLogger(__name__)

Job = Callable[[], object]
_PAUSE = 5.0  # seconds between attempts at the end of a run


class _Task(NamedTuple):
    job: Job
    outcome: Future


class BackgroundWriter:
    """Thread that runs writing jobs one after another.

    A job that fails because of the disk (OSError) is kept and retried, until a newer job of the
    same name replaces it. The process ends only after the running job.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "writer")
        self._tasks: dict[str, _Task] = {}

    def submit(self, name: str, job: Job) -> None:
        """Queue a job; wait for an earlier one of that name, if there is one."""
        if earlier := self._tasks.pop(name, None):
            _require_disk_fault(name, earlier.outcome.exception())
        self._tasks[name] = _Task(job, self._executor.submit(job))

    def retry(self) -> None:
        """Warn of failed jobs, and queue them again. Raises errors that are not the disk's."""
        for name, (job, outcome) in list(self._tasks.items()):
            if not outcome.done():
                continue
            del self._tasks[name]
            if _require_disk_fault(name, outcome.exception()):
                self._tasks[name] = _Task(job, self._executor.submit(job))

    def finish(self, patience: float, give_up: Callable[[], object]) -> None:
        """Wait for all jobs, retrying those that fail.

        Args:
            patience: seconds to retry for.
            give_up: called before each attempt; stop retrying once it returns true.

        Raises:
            UserError: if something could not be written.
        """
        until = time.monotonic() + patience
        while failures := self._failures():
            if time.monotonic() > until or give_up():
                raise UserError(
                    f"not everything could be saved ({failures[0]}); the last complete checkpoint "
                    "is kept: make room on the disk, then resume with --auto_resume"
                )
            self.retry()
            time.sleep(min(_PAUSE, patience))

    def _failures(self) -> list[BaseException]:
        """Wait for all jobs; return the errors of those that failed."""
        outcomes = [task.outcome.exception() for task in self._tasks.values()]
        return [error for error in outcomes if error is not None]


def _require_disk_fault(name: str, error: BaseException | None) -> bool:
    """Return whether a job failed; warn if it was a disk error, raise any other error."""
    if error is None:
        return False
    if not isinstance(error, OSError):
        raise error
    logger.error(
        "THE %s COULD NOT BE SAVED (%s: %s). The run continues and retries: free space on "
        "the disk. The last complete checkpoint is kept.",
        *(name.upper(), error.filename, error.strerror),
    )
    return True
