"""Where networks run."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import torch

from basicsr.utils.errors import OptionsError


def select_device(wish: str) -> torch.device:
    """`wish`: "auto" (a GPU where there is one), "cuda" or "cpu".

    Each process of torchrun gets the GPU of its LOCAL_RANK. Raises OptionsError where it is not
    there.
    """
    if wish == "cuda" and not torch.cuda.is_available():
        raise OptionsError(
            "device: 'cuda' is asked for, but PyTorch finds no CUDA GPU; use 'cpu' or 'auto'"
        )
    if wish == "auto":
        wish = "cuda" if torch.cuda.is_available() else "cpu"
    if wish == "cpu":
        return torch.device("cpu")
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if number >= torch.cuda.device_count():
        raise OptionsError(
            f"device: there are {torch.cuda.device_count()} GPUs here, too few for "
            f"{number + 1} processes; lower --nproc-per-node, or use device: cpu"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def memory_held(device: torch.device) -> int:
    """Bytes that this process holds now: allocated on the GPU, or resident."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return int(peak_memory_gib(device) * 2**30)


def memory_left(device: torch.device) -> int:
    """Bytes that this process can still take, on the GPU or on this machine within its limits."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    left = os.sysconf("SC_PHYS_PAGES") * resource.getpagesize() - memory_held(device)
    meminfo, statm = Path("/proc/meminfo"), Path("/proc/self/statm")
    if meminfo.exists():
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
        left = 1024 * int(lines["MemAvailable"].split()[0])
        pages = [int(number) for number in statm.read_text().split()]
        for limit, taken in ((resource.RLIMIT_AS, pages[0]), (resource.RLIMIT_DATA, pages[5])):
            soft, _ = resource.getrlimit(limit)
            if soft != resource.RLIM_INFINITY:
                left = min(left, soft - taken * resource.getpagesize())
    return left


def is_out_of_memory(error: RuntimeError) -> bool:
    """PyTorch has a class of its own for a full GPU only."""
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in str(error) for words in ("allocate memory", "not enough memory", "bad_alloc")
    )


def peak_memory_gib(device: torch.device) -> float:
    """The most memory held so far: allocated on the GPU, or resident for this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
