"""Where networks run."""

from __future__ import annotations

import resource
import sys

import torch

from basicsr.utils.errors import OptionsError


def select_device(wish: str) -> torch.device:
    """`wish`: "auto" (a GPU where there is one), "cuda" or "cpu"."""
    if wish == "cuda" and not torch.cuda.is_available():
        raise OptionsError(
            "device: 'cuda' is asked for, but PyTorch finds no CUDA GPU; use 'cpu' or 'auto'"
        )
    if wish == "auto":
        wish = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wish)


def peak_memory_gib(device: torch.device) -> float:
    """The most memory held so far: allocated on the GPU, or resident for this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
