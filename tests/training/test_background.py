"""Writing in the background: failed jobs are reported and retried."""

import errno
import threading

import pytest

from basicsr.training import background
from basicsr.training.background import BackgroundWriter
from basicsr.utils.errors import UserError


class Disk:
    """Stand-in for a disk that is full until `full` is set to False."""

    def __init__(self, full=True):
        self.full = full
        self.written = []

    def job(self, what):
        def write():
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device", "x.state")
            self.written.append(what)

        return write


def never():
    return False


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(background, "_PAUSE", 0.01)


def test_the_caller_does_not_wait_for_the_disk():
    writer, go_on, done = BackgroundWriter(), threading.Event(), []
    writer.submit("state", lambda: done.append(go_on.wait(10)))
    assert done == []
    go_on.set()
    writer.finish(1, never)
    assert done == [True]


def test_a_failed_job_is_reported_and_retried(caplog):
    writer, disk = BackgroundWriter(), Disk()
    writer.submit("checkpoint", disk.job(1))
    writer._tasks["checkpoint"].outcome.exception()
    writer.retry()
    assert "THE CHECKPOINT COULD NOT BE SAVED (x.state: No space left on device)" in caplog.text
    disk.full = False
    writer.finish(1, never)
    assert disk.written == [1]


def test_a_newer_job_replaces_a_failed_one():
    writer, disk = BackgroundWriter(), Disk()
    writer.submit("checkpoint", disk.job(1))
    writer._tasks["checkpoint"].outcome.exception()
    disk.full = False
    writer.submit("checkpoint", disk.job(2))
    writer.finish(1, never)
    assert disk.written == [2]


def test_retrying_ends_in_an_error():
    writer, disk = BackgroundWriter(), Disk()
    writer.submit("checkpoint", disk.job(1))
    with pytest.raises(UserError, match=r"not everything could be saved .*No space left"):
        writer.finish(0.05, never)
    with pytest.raises(UserError):
        writer.finish(1000, lambda: True)


def test_a_failure_is_reported_although_a_newer_job_follows(caplog):
    writer, disk = BackgroundWriter(), Disk()
    writer.submit("checkpoint", disk.job(1))
    writer.submit("checkpoint", disk.job(2))
    assert "THE CHECKPOINT COULD NOT BE SAVED" in caplog.text


def test_errors_that_are_not_the_disks_are_raised():
    writer = BackgroundWriter()
    writer.submit("checkpoint", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        writer.finish(1, never)
