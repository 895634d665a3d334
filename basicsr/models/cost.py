"""Cost of a network: parameters, multiply-accumulates, memory of a training step, latency.

All but the latency comes from a forward pass of fake tensors, which have shapes but no data, so any
image size is possible.
"""

from __future__ import annotations

import copy
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from basicsr.utils.devices import autocast, is_out_of_memory

Shape = tuple[int, int, int, int]

WARM_UP = 3
_CONVOLUTIONS = ("aten.convolution", "aten.mm", "aten.addmm")  # the products are 1x1 convolutions


class Cost(NamedTuple):
    """Cost of one forward pass.

    Attributes:
        parameters: number of weights.
        macs: multiply-accumulates of convolutions and matrix products.
        convolution_macs: those of convolutions only, as many papers count; including 1x1
            convolutions that are computed as matrix products.
        activations: bytes kept for the backward pass.
    """

    parameters: int
    macs: int
    convolution_macs: int
    activations: int


class Latency(NamedTuple):
    """Seconds of one forward pass: median and quartiles of the timed runs."""

    median: float
    lower: float
    upper: float


def network_cost(network: nn.Module, shape: Shape, precision: str = "fp32") -> Cost:
    """Return the cost of a forward pass.

    Args:
        network: any network of basicsr.archs.
        shape: N x in_channels x H x W of the input; `size_multiple` divides H and W.
        precision: "fp32", "bf16" or "fp16".
    """
    from torch._subclasses.fake_tensor import FakeTensorMode  # imported late: it takes memory
    from torch.utils.flop_counter import FlopCounterMode

    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        # Keep a reference, so that no later tensor gets the same address.
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    twin = copy.deepcopy(network).cpu().train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        counter = FlopCounterMode(display=False)
        with (
            counter,
            saved_tensors_hooks(keep, lambda tensor: tensor),
            autocast("cpu", precision),
        ):
            twin(torch.rand(shape), all_stages=True)
    for parameter in twin.parameters():
        kept.pop(parameter.untyped_storage()._cdata, None)
    flops = counter.get_flop_counts()["Global"]
    return Cost(
        parameters=sum(p.numel() for p in network.parameters()),
        macs=sum(flops.values()) // 2,
        convolution_macs=sum(n for op, n in flops.items() if str(op) in _CONVOLUTIONS) // 2,
        activations=sum(tensor.untyped_storage().nbytes() for tensor in kept.values()),
    )


def training_memory(network: nn.Module, activations: int, averaged: bool) -> int:
    """Estimate the bytes of a training step with Adam, without temporary buffers.

    The sum of weights, gradients and two moments in float32, averaged weights and activations.

    Args:
        network: the network in training.
        activations: `Cost.activations` of a batch.
        averaged: whether the weights are averaged.
    """
    weights = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return 4 * weights * (5 if averaged else 4) + activations


@torch.inference_mode()
def latency(
    network: nn.Module, shape: Shape, device: torch.device, precision: str = "fp32", runs: int = 20
) -> Latency:
    """Time forward passes on `device` as test.py runs them, after a few untimed ones.

    Args:
        network: any network of basicsr.archs.
        shape: N x in_channels x H x W of the input.
        device: where to run.
        precision: "fp32", "bf16" or "fp16".
        runs: number of timed forward passes.

    Raises:
        MemoryError: if the device has too little memory.
    """
    try:
        with bounded_memory(device), autocast(device.type, precision):
            network = network.eval().to(device).to(memory_format=torch.channels_last)
            x = torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)
            seconds = [_seconds(network, x) for _ in range(WARM_UP + runs)][WARM_UP:]
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise MemoryError from None
        raise
    lower, median, upper = np.percentile(seconds, [25, 50, 75])
    return Latency(float(median), float(lower), float(upper))


@contextmanager
def bounded_memory(device: torch.device) -> Iterator[None]:
    """Make allocations on a CPU fail when the memory is used up.

    Linux would grant more than there is, and kill a process when the memory is used.
    """
    meminfo = Path("/proc/meminfo")
    if device.type != "cpu" or not meminfo.exists():
        yield
        return
    lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
    available = 1024 * int(lines["MemAvailable"].split()[0])
    held = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bound = held + available
    resource.setrlimit(
        resource.RLIMIT_DATA, (bound if soft == resource.RLIM_INFINITY else min(soft, bound), hard)
    )
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _seconds(network: nn.Module, x: Tensor) -> float:
    synchronize(x.device)
    start = time.perf_counter()
    network(x)
    synchronize(x.device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
