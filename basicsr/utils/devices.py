"""Where networks run."""

from __future__ import annotations

import os
import resource
import sys

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


def peak_memory_gib(device: torch.device) -> float:
    """The most memory held so far: allocated on the GPU, or resident for this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
