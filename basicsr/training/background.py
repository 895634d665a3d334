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
        if earlier := self._tasks.pop(name, None):
            _require_disk_fault(name, earlier.outcome.exception())
        self._tasks[name] = _Task(job, self._executor.submit(job))

    def retry(self) -> None:
        """Warn of what has failed, and try it again. Raises what no other disk would mend."""
        for name, (job, outcome) in list(self._tasks.items()):
            if not outcome.done():
                continue
            del self._tasks[name]
            if _require_disk_fault(name, outcome.exception()):
                self._tasks[name] = _Task(job, self._executor.submit(job))

    def finish(self, patience: float, hurried: Callable[[], object]) -> None:
        """Wait for all jobs; try again those that fail, for `patience` seconds or until `hurried`.

        Raises UserError where something cannot be written.
        """
        until = time.monotonic() + patience
        while failures := [e for task in self._tasks.values() if (e := task.outcome.exception())]:
            if time.monotonic() > until or hurried():
                raise UserError(
                    f"not everything could be saved ({failures[0]}); the last complete checkpoint "
                    "is kept: make room on the disk, then resume with --auto_resume"
                )
            self.retry()
            time.sleep(min(_PAUSE, patience))


def _require_disk_fault(name: str, error: BaseException | None) -> bool:
    """Whether a job failed. Warns if it was the disk's fault, and raises if it was not."""
    if error is None:
        return False
    if not isinstance(error, OSError):
        raise error
    logger.error(
        "THE %s COULD NOT BE SAVED (%s: %s). The run goes on and tries again: make room on the "
        "disk. The last complete checkpoint is kept.",
        *(name.upper(), error.filename, error.strerror),
    )
    return True
