"""Devices: selection, memory in use, and memory that is available.

PyTorch is imported by the functions that need it, so that a command line is parsed without it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from basicsr.utils.errors import OptionsError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("basicsr")

HALF_TYPES = {"bf16": "bfloat16", "fp16": "float16"}  # their names in PyTorch
PRECISIONS = ("fp32", *HALF_TYPES)
CPUINFO = Path("/proc/cpuinfo")
CPU_FLAGS = {"bf16": r"\b(avx512_|amx_)?bf16\b", "fp16": r"\b(avx512_fp16|amx_fp16|asimdhp)\b"}
"""Flags there of processors, x86 and ARM, that multiply values of these precisions."""
BACKENDS = ("pytorch", "openvino")
"""What computes networks; the second needs the extra `openvino`."""


def select_device(name: str) -> torch.device:
    """Return the device `name`: "auto" (a GPU if there is one), "cuda" or "cpu".

    Under torchrun each process gets the GPU of its LOCAL_RANK. On a CPU, memory that tensors free
    stays with the process from now on (see `keep_freed_memory`).

    Raises:
        OptionsError: the device does not exist on this machine.
    """
    import torch

    if name not in ("auto", "cuda", "cpu"):
        raise OptionsError(f"device: '{name}' is none of auto, cuda, cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionsError("device: PyTorch finds no CUDA GPU; use 'cpu' or 'auto'")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        keep_freed_memory()
        return torch.device("cpu")
    rank, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if rank >= gpus:
        raise OptionsError(
            f"device: {rank + 1} processes need as many GPUs, but this machine has {gpus}; "
            "lower --nproc-per-node, or use device: cpu"
        )
    torch.cuda.set_device(rank)
    return torch.device("cuda", rank)


@functools.cache
def has_units(device: torch.device, precision: str) -> bool:
    """Return whether `device` multiplies values of `precision` itself, instead of emulating it.

    For a processor, Linux says so in `CPUINFO`. On other systems the answer is no.
    """
    import torch

    if precision == "fp32" or (device.type == "cuda" and precision == "fp16"):
        return True
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return CPUINFO.exists() and re.search(CPU_FLAGS[precision], CPUINFO.read_text()) is not None


@functools.cache
def usable_precision(precision: str, device: torch.device) -> str:
    """Return `precision`, or "fp32" if `device` would only emulate it.

    The first time, a warning says so.
    """
    if has_units(device, precision):
        return precision
    on_gpu = device.type == "cuda"
    logger.warning(
        "precision: this %s has no units for %s, and would emulate it slowly; fp32 is used%s",
        "GPU" if on_gpu else "processor",
        precision,
        ". It has units for fp16" if on_gpu else "",
    )
    return "fp32"


def autocast(device_type: str, precision: str) -> torch.autocast:
    """Return a context in which networks run in `precision`, under autocast unless it is "fp32"."""
    import torch

    if precision not in HALF_TYPES:
        return torch.autocast(device_type, enabled=False)
    return torch.autocast(device_type, getattr(torch, HALF_TYPES[precision]))


def to_unit_range(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return an N x C x H x W batch as float32 on `device`, channels last in memory.

    uint8 and uint16 are scaled to [0, 1]; float32 keeps its values.
    """
    import torch

    images = images.to(device, memory_format=torch.channels_last, non_blocking=True)
    if images.dtype.is_floating_point:
        return images.float()
    return images.float().div_(torch.iinfo(images.dtype).max)


# Parameters of glibc's mallopt, from malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4

_C_LIBRARY = ctypes.CDLL(None)


def keep_freed_memory(keep: bool = True) -> None:
    """Have glibc reuse the memory of freed tensors instead of returning it to the system.

    The system zeroes every page that it hands out again, which takes longer than most operations
    on a tensor. `keep=False` restores glibc's default. No effect with other C libraries.
    """
    if hasattr(_C_LIBRARY, "mallopt"):
        _C_LIBRARY.mallopt(M_MMAP_MAX, 0 if keep else 65536)
        _C_LIBRARY.mallopt(M_MMAP_THRESHOLD, 2**25)
        _C_LIBRARY.mallopt(M_TRIM_THRESHOLD, -1 if keep else 2**26)


def release_freed_memory() -> None:
    """Return memory that glibc keeps for reuse to the system."""
    if hasattr(_C_LIBRARY, "malloc_trim"):
        _C_LIBRARY.malloc_trim(0)


def memory_in_use(device: torch.device) -> int:
    """Return the bytes that this process uses now: allocated on the GPU, or resident."""
    if device.type == "cuda":
        import torch

        return torch.cuda.memory_allocated(device)
    release_freed_memory()
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return int(peak_memory_gib(device) * 2**30)


def available_memory(device: torch.device) -> int:
    """Return the bytes that this process can still allocate.

    On a CPU this is the smallest of the machine's available memory, the process's resource limits
    and the limits of its control groups. Processes that torchrun has started on this machine get
    equal parts of it.
    """
    if device.type == "cuda":
        import torch

        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    release_freed_memory()
    free = os.sysconf("SC_PHYS_PAGES") * resource.getpagesize() - memory_in_use(device)
    meminfo, statm = Path("/proc/meminfo"), Path("/proc/self/statm")
    if meminfo.exists():
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
        pages = [int(number) for number in statm.read_text().split()]
        for limit, used in ((resource.RLIMIT_AS, pages[0]), (resource.RLIMIT_DATA, pages[5])):
            soft, _ = resource.getrlimit(limit)
            if soft != resource.RLIM_INFINITY:
                free = min(free, soft - used * resource.getpagesize())
    free = min([free, *_available_in_cgroups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])
    return free // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _available_in_cgroups(membership: Path, root: Path) -> Iterator[int]:
    """Yield the available bytes of each of this process's control groups that has a limit.

    Containers and batch jobs limit memory this way. `membership` is /proc/self/cgroup, and `root`
    the folder where the cgroup v2 file system is mounted.
    """
    if not membership.exists():
        return
    group = membership.read_text().splitlines()[-1].partition("::")[2].lstrip("/")
    for folder in (root / group, *(root / group).parents):
        if not folder.is_relative_to(root):
            return
        file = folder / "memory.max"
        if file.exists() and (limit := file.read_text().strip()) != "max":
            used = int((folder / "memory.current").read_text())
            statistics = dict(map(str.split, (folder / "memory.stat").read_text().splitlines()))
            # inactive pages of the file cache count as used, but are reclaimed when needed
            yield int(limit) - used + int(statistics["inactive_file"])


def is_out_of_memory(error: Exception) -> bool:
    """Return whether `error` means lack of memory, on a GPU or on the CPU.

    PyTorch has an exception class only for the GPU; on a CPU the message has to be searched.
    """
    return (
        is_out_of_gpu_memory(error)
        or isinstance(error, MemoryError)
        or any(
            words in str(error) for words in ("allocate memory", "not enough memory", "bad_alloc")
        )
    )


def is_out_of_gpu_memory(error: Exception) -> bool:
    """Return whether `error` is PyTorch's error for lack of GPU memory."""
    torch = sys.modules.get("torch")  # its errors come only from a process that has imported it
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def peak_memory_gib(device: torch.device) -> float:
    """Return the peak memory of this process in GiB: allocated on the GPU, or resident."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory_gib` return the peak from now on (on a CPU, where Linux allows it)."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
