"""Loader workers that are killed or cannot be started."""

from __future__ import annotations

import errno
import gc
import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from basicsr.data import LoaderSettings, SampleStage, SyntheticRainDataset, training_batches
from basicsr.data import workers as workers_module
from basicsr.data.workers import answers, shared_bytes, usable_workers
from basicsr.utils.errors import UserError


@pytest.fixture
def source(make_images) -> SyntheticRainDataset:
    return SyntheticRainDataset(str(make_images((f"{i}.png" for i in range(5)), 20, 24)))


def _batches(source, num_workers: int = 1, micro_batches: int = 1):
    stages = [SampleStage(size=8, batch_size=4, iters=9), SampleStage(12, 2, 4)]
    settings = LoaderSettings(stages, seed=3, num_workers=num_workers, micro_batches=micro_batches)
    return training_batches(source, settings)


def _kill_a_worker() -> None:
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_killed_worker_is_replaced_and_changes_nothing(source, micro_batches, caplog):
    expected = list(_batches(source, 0, micro_batches))
    handler = signal.getsignal(signal.SIGCHLD)
    with caplog.at_level(logging.WARNING, "basicsr"):
        batches = []
        for batch in _batches(source, 1, micro_batches):
            batches.append(batch)
            if len(batches) == 4:
                _kill_a_worker()
    assert signal.getsignal(signal.SIGCHLD) is handler
    for batch, other in zip(batches, expected, strict=True):
        assert batch.names == other.names
        assert torch.equal(batch.lq, other.lq)
    assert "all are started again (1 of at most 3 times)" in caplog.text
    assert multiprocessing.active_children() == []


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after some seconds.

    The block stays in the main thread, as workers do not survive a fork from another one: they
    would destroy what the main thread holds, and a process group of PyTorch then waits for ever.
    """

    def end(*_: object) -> None:
        raise TimeoutError(f"not done within {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("items", [1, 3], ids=["after an item", "at the end"])
def test_a_lock_of_a_killed_worker_does_not_block_the_end(items):
    with _deadline(60):
        with workers_module._started(DataLoader([0, 1, 2], num_workers=1)) as loaded:
            for _ in range(items):
                next(loaded)
            loaded._workers_done_event.shared._cond.acquire()  # a worker does so for each item
            if items == 3:
                assert list(loaded) == []
        loaded._shutdown_workers()  # as its destructor does
    assert multiprocessing.active_children() == []


class _DiesWithLock(Dataset):
    """Numbers; the process that is asked for the second one ends, holding the lock."""

    events: ClassVar[list] = []  # of the loader

    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> int:
        if number == 1:
            self.events[0]._cond.acquire()
            os._exit(1)
        return number


def test_the_death_of_a_worker_that_holds_a_lock_is_noticed(monkeypatch):
    monkeypatch.setattr(workers_module, "RESTARTS", 0)
    make_event = torch.multiprocessing.get_context().Event

    def event():
        made = make_event()
        monkeypatch.setattr(_DiesWithLock, "events", [made])
        return made

    monkeypatch.setattr(torch.multiprocessing, "Event", event)
    with _deadline(60), pytest.raises(UserError, match=r"^loader workers were killed 1 times,"):
        list(answers(lambda done: DataLoader(_DiesWithLock(), batch_size=None, num_workers=1)))


class _Fails(Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> int:
        raise NotImplementedError("no such picture")


def test_an_error_of_a_data_set_is_not_a_killed_worker(caplog):
    with pytest.raises(NotImplementedError, match="no such picture"):
        list(answers(lambda done: DataLoader(_Fails(), batch_size=None, num_workers=1)))
    assert caplog.text == ""


def test_workers_that_are_killed_again_and_again_end_the_run(source, monkeypatch):
    monkeypatch.setattr(workers_module, "RESTARTS", 0)
    batches = _batches(source)
    next(batches)
    _kill_a_worker()
    with pytest.raises(UserError, match=r"killed 1 times.*lower num_worker_per_gpu or cache_gib"):
        list(batches)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "No space left on device); /dev/shm is full: start the container with"),
        (errno.EAGAIN, "Resource temporarily unavailable); lower num_worker_per_gpu (0 needs"),
    ],
)
def test_workers_that_cannot_be_started(source, monkeypatch, capsys, number, words):
    def refuse():
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(torch.multiprocessing, "Queue", refuse)
    with pytest.raises(UserError) as caught:
        next(_batches(source))
    assert words in str(caught.value)
    del caught
    gc.collect()
    assert capsys.readouterr().err == ""  # nothing from PyTorch's destructor


def test_no_more_workers_than_cores(monkeypatch, caplog):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2}, raising=False)
    with caplog.at_level(logging.INFO, "basicsr"):
        assert [usable_workers(wanted) for wanted in (0, 2, 3)] == [0, 2, 3]
        assert caplog.text == ""
        assert usable_workers(8) == 3
    assert "loader workers: 3, the number of CPU cores, instead of 8" in caplog.text


def test_pytorch_does_not_warn_of_too_many_workers(source, recwarn):
    cores = len(os.sched_getaffinity(0))
    next(_batches(source, num_workers=cores + 2))
    assert [str(each.message) for each in recwarn] == []


def test_shared_bytes_are_written_to_by_a_forked_process():
    memory = shared_bytes(2, 3)
    if (child := os.fork()) == 0:
        memory[1] = torch.tensor([7, 8, 9], dtype=torch.uint8)
        os._exit(0)
    os.waitpid(child, 0)
    assert memory.tolist() == [[0, 0, 0], [7, 8, 9]]
