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
held = devices.memory_in_use(torch.device("cpu"))
print(faults(), devices.memory_in_use(torch.device("cpu")) - held)
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


def test_memory_left_is_that_of_the_tightest_control_group(tmp_path):
    membership = tmp_path / "cgroup"
    membership.write_text("0::/job/step\n")
    for folder, limit in (("job", "1000"), ("job/step", "max")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "memory.max").write_text(f"{limit}\n")
        (tmp_path / folder / "memory.current").write_text("700\n")
        (tmp_path / folder / "memory.stat").write_text("anon 500\ninactive_file 200\n")
    assert list(devices._left_of_groups(membership, tmp_path)) == [500]
    assert not list(devices._left_of_groups(tmp_path / "absent", tmp_path))
