from __future__ import annotations

import resource
import sys

import pytest
import torch

from basicsr.utils import devices

CPU = torch.device("cpu")
GLIBC = hasattr(devices._C_LIBRARY, "mallopt") and sys.platform == "linux"


@pytest.fixture
def as_the_system_does():
    yield
    devices.keep_freed_memory(False)
    devices.give_back_freed_memory()


def page_faults_of(work):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(not GLIBC, reason="mallopt is glibc's")
def test_freed_memory_is_kept_until_it_is_counted(as_the_system_does):
    """A tensor of 256 MiB; the system clears its pages, of up to 2 MiB, at their first use."""

    def work():
        torch.ones(2**26)

    devices.keep_freed_memory(False)
    work()
    assert page_faults_of(work) > 100
    devices.select_device("cpu")
    for _ in range(5):  # until small blocks have found places that large ones do not need
        work()
    assert page_faults_of(work) < 50
    held = devices.memory_held(CPU)
    assert page_faults_of(work) > 100
    assert devices.memory_held(CPU) < held + 2**26
