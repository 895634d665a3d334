from __future__ import annotations

import subprocess
import sys

import pytest
import torch

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
def test_freed_memory_is_reused_until_it_is_released():
    """Page faults of a 64 MiB tensor: none when it reuses freed memory, some when it is new.

    Reuse begins after small blocks have settled elsewhere, hence the minimum of several tries. Runs
    in a process of its own, as memory freed by other tests would be reused too.
    """
    command = [sys.executable, "-c", MEASURE]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    given_back, kept, counted, more = map(int, ran.stdout.split())
    assert given_back > 25
    assert kept < 10
    assert counted > 25
    assert more < 2**24


@pytest.mark.parametrize(
    ("flags", "units"),
    [
        ("flags : fma avx2 avx512f avx512_vnni", ["fp32"]),
        ("flags : avx2 avx512_bf16", ["fp32", "bf16"]),
        ("flags : avx2 avx512_fp16 amx_bf16 amx_tile", ["fp32", "bf16", "fp16"]),
        ("Features : fp asimd asimdhp svebf16", ["fp32", "fp16"]),
        ("Features : fp asimd asimdhp bf16", ["fp32", "bf16", "fp16"]),
        (None, ["fp32"]),
    ],
)
def test_units_of_processors(flags, units, tmp_path, monkeypatch):
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}\n")
    monkeypatch.setattr(devices, "CPUINFO", tmp_path / "cpuinfo")
    has_units = devices.has_units.__wrapped__  # without the cache
    cpu = torch.device("cpu")
    assert [each for each in devices.PRECISIONS if has_units(cpu, each)] == units


def test_available_memory_respects_the_limits_of_control_groups(tmp_path):
    membership = tmp_path / "cgroup"
    membership.write_text("0::/job/step\n")
    for folder, limit in (("job", "1000"), ("job/step", "max")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "memory.max").write_text(f"{limit}\n")
        (tmp_path / folder / "memory.current").write_text("700\n")
        (tmp_path / folder / "memory.stat").write_text("anon 500\ninactive_file 200\n")
    assert list(devices._available_in_cgroups(membership, tmp_path)) == [500]
    assert not list(devices._available_in_cgroups(tmp_path / "absent", tmp_path))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_integers_become_the_unit_range(dtype, device):
    largest = torch.iinfo(dtype).max
    levels = torch.arange(largest + 1).to(dtype).view(1, 1, 16, -1)
    scaled = devices.to_unit_range(levels, device)
    assert (scaled.dtype, scaled.device.type) == (torch.float32, device.type)
    expected = torch.arange(largest + 1, dtype=torch.float32).view(1, 1, 16, -1) / largest
    torch.testing.assert_close(scaled.cpu(), expected, rtol=0, atol=1e-7)


def test_floats_keep_their_values_and_all_are_channels_last(device):
    images = torch.randn(2, 6, 4, 5) * 2
    moved = devices.to_unit_range(images, device)
    assert torch.equal(moved.cpu(), images)
    assert moved.is_contiguous(memory_format=torch.channels_last)


def test_processes_of_torchrun_share_the_memory_of_their_machine(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = devices.available_memory(cpu)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert devices.available_memory(cpu) < alone / 4
