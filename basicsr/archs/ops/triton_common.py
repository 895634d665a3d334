"""Constants and helpers of all Triton kernels."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

FLOAT32 = tl.constexpr(tl.float32)


def multiprocessors(x: Tensor) -> int:
    """Return how many programs run in parallel; Triton's interpreter runs one."""
    if not x.is_cuda:
        return 1
    return torch.cuda.get_device_properties(x.device).multi_processor_count
