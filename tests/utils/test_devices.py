from __future__ import annotations

import subprocess
import sys

import pytest

from basicsr.utils import devices

GLIBC = hasattr(devices._C_LIBRARY, "mallopt") and sys.platform == "linux"


MEASURE = """
import resource, torch
from basicsr.utils import devices

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

devices.keep_freed_memory(False)
print(min(faults() for _ in range(20)))
devices.select_device("cpu")
print(min(faults() for _ in range(20)))
held = devices.memory_held(torch.device("cpu"))
print(faults(), devices.memory_held(torch.device("cpu")) - held)
"""


@pytest.mark.skipif(not GLIBC, reason="mallopt is glibc's")
def test_freed_memory_is_kept_until_it_is_counted():
    """A tensor of 64 MiB; the system clears its pages, of up to 2 MiB, at their first use.

    Those that are kept come back once small blocks have found places that large ones do not need.
    In a process of its own: what others have freed would come back too.
    """
    command = [sys.executable, "-c", MEASURE]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    given_back, kept, counted, more = map(int, ran.stdout.split())
    assert given_back > 25
    assert kept < 10
    assert counted > 25
    assert more < 2**24
