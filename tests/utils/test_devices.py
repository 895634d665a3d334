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
    """A tensor of 64 MiB; the system clears its pages, of up to 2 MiB, at their first use.

    Those that are kept come back once small blocks have found places that large ones do not need.
    """

    def faults():
        return page_faults_of(lambda: torch.ones(2**24))

    devices.keep_freed_memory(False)
    assert min(faults() for _ in range(20)) > 25
    devices.select_device("cpu")
    assert min(faults() for _ in range(20)) < 10
    held = devices.memory_held(CPU)
    assert faults() > 25
    assert devices.memory_held(CPU) < held + 2**24
