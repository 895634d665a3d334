"""Where networks run."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from basicsr.utils.errors import OptionsError


def select_device(wish: str) -> torch.device:
    """`wish`: "auto" (a GPU where there is one), "cuda" or "cpu".

    Each process of torchrun gets the GPU of its LOCAL_RANK. On a CPU the process keeps from now on
    the memory that tensors have freed. Raises OptionsError where the device is not there.
    """
    if wish not in ("auto", "cuda", "cpu"):
        raise OptionsError(f"device: '{wish}' is none of auto, cuda, cpu")
    if wish == "cuda" and not torch.cuda.is_available():
        raise OptionsError(
            "device: 'cuda' is asked for, but PyTorch finds no CUDA GPU; use 'cpu' or 'auto'"
        )
    if wish == "auto":
        wish = "cuda" if torch.cuda.is_available() else "cpu"
    if wish == "cpu":
        keep_freed_memory()
        return torch.device("cpu")
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if number >= torch.cuda.device_count():
        raise OptionsError(
            f"device: there are {torch.cuda.device_count()} GPUs here, too few for "
            f"{number + 1} processes; lower --nproc-per-node, or use device: cpu"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # glibc's malloc.h


def keep_freed_memory(keep: bool = True) -> None:
    """The next tensors on a CPU get the pages of those that were freed.

    glibc gives large blocks back to the system, which clears the pages of every new one: that
    takes longer than most of what is computed on them. Other C libraries are left as they are.
    Not to `keep` it is what glibc does by itself in a process that has freed blocks of 32 MiB.
    """
    if hasattr(_C_LIBRARY, "mallopt"):
        _C_LIBRARY.mallopt(M_MMAP_MAX, 0 if keep else 65536)
        _C_LIBRARY.mallopt(M_MMAP_THRESHOLD, 2**25)
        _C_LIBRARY.mallopt(M_TRIM_THRESHOLD, -1 if keep else 2**26)


def release_freed_memory() -> None:
    if hasattr(_C_LIBRARY, "malloc_trim"):
        _C_LIBRARY.malloc_trim(0)


_C_LIBRARY = ctypes.CDLL(None)


def memory_in_use(device: torch.device) -> int:
    """Bytes that this process holds now: allocated on the GPU, or resident."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    release_freed_memory()
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return int(peak_memory_gib(device) * 2**30)


def available_memory(device: torch.device) -> int:
    """Bytes that this process can still take, on the GPU or on this machine within its limits."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    release_freed_memory()
    left = os.sysconf("SC_PHYS_PAGES") * resource.getpagesize() - memory_in_use(device)
    meminfo, statm = Path("/proc/meminfo"), Path("/proc/self/statm")
    if meminfo.exists():
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
        left = 1024 * int(lines["MemAvailable"].split()[0])
        pages = [int(number) for number in statm.read_text().split()]
        for limit, taken in ((resource.RLIMIT_AS, pages[0]), (resource.RLIMIT_DATA, pages[5])):
            soft, _ = resource.getrlimit(limit)
            if soft != resource.RLIM_INFINITY:
                left = min(left, soft - taken * resource.getpagesize())
    return min([left, *_left_of_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])


def _left_of_groups(membership: Path, root: Path) -> Iterator[int]:
    """Bytes left to each control group of Linux (a container's, a job's) that has a limit."""
    if not membership.exists():
        return
    group = membership.read_text().splitlines()[-1].partition("::")[2].lstrip("/")
    for folder in (root / group, *(root / group).parents):
        if not folder.is_relative_to(root):
            return
        file = folder / "memory.max"
        if file.exists() and (limit := file.read_text().strip()) != "max":
            taken = int((folder / "memory.current").read_text())
            statistics = dict(map(str.split, (folder / "memory.stat").read_text().splitlines()))
            # pages of files that nobody has used lately can be taken back
            yield int(limit) - taken + int(statistics["inactive_file"])


def is_out_of_memory(error: Exception) -> bool:
    """PyTorch has a class of its own for a full GPU only."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        words in str(error) for words in ("allocate memory", "not enough memory", "bad_alloc")
    )


def peak_memory_gib(device: torch.device) -> float:
    """The most memory held so far: allocated on the GPU, or resident for this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
