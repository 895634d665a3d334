"""Lower bound of a network's time: its work divided by the measured speed of the device."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Container
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from basicsr.utils.devices import HALF_TYPES, autocast

DTYPES = {
    "fp32": torch.float32,
    **{name: getattr(torch, dtype) for name, dtype in HALF_TYPES.items()},
}


class Ceilings(NamedTuple):
    """Speed of a device.

    `macs`: multiply-accumulates per second of a large square matrix product or of a 1x1 convolution
    with 256 channels, the faster of the two. `traffic`: bytes read and written per second by a
    large copy.
    """

    macs: float
    traffic: float


class Work(NamedTuple):
    """Work of a network: multiply-accumulates, and bytes of memory traffic.

    The traffic counts the operands and the result of each convolution and matrix product once, as
    if everything else were fused into them.
    """

    macs: int
    traffic: int

    def floor(self, ceilings: Ceilings) -> dict[str, Any]:
        """Return the minimum `seconds`, and whether "arithmetic" or "memory" is the bound."""
        arithmetic, memory = self.macs / ceilings.macs, self.traffic / ceilings.traffic
        return {
            "seconds": max(arithmetic, memory),
            "bound": "arithmetic" if arithmetic > memory else "memory",
        }


def measure_ceilings(device: torch.device, precision: str, scale: int = 1) -> Ceilings:
    """Measure the speed of `device`.

    Args:
        device: the device to measure.
        precision: "fp32", "bf16" or "fp16". fp32 products on a GPU use TF32 if cuDNN's
            convolutions do.
        scale: divides the sides of the matrices and the length of the copy.
    """
    side = (8192 if device.type == "cuda" else 2048) // scale
    length = (2**32 if device.type == "cuda" else 2**28) // scale
    a, b = (torch.randn(side, side, device=device).to(DTYPES[precision]) for _ in range(2))
    image = torch.randn(1, side // 16, side // 16, 256, device=device).to(DTYPES[precision])
    image, weight = image.permute(0, 3, 1, 2), image.new_ones(256, 256, 1, 1)
    source = torch.empty(length, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    tf32 = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        square = side**3 / shortest(lambda: a @ b, device)
        wide = 256 * image.numel() / shortest(lambda: F.conv2d(image, weight), device)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = tf32
    return Ceilings(max(square, wide), 2 * length / shortest(lambda: target.copy_(source), device))


def shortest(run: Callable[[], object], device: torch.device, repeats: int = 7) -> float:
    """Return the seconds of the fastest of `repeats` runs, after one that is not timed."""
    run()
    return min(timed(run, device) for _ in range(repeats))


def timed(run: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of one run, synchronised with the GPU."""
    wait(device)
    start = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - start


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def work_of(
    network: nn.Module, shape: tuple[int, ...], precision: str, training: bool = False
) -> Work:
    """Count the work of `network` on a batch of `shape`, with the backward pass if `training`."""
    # late, as these modules would add to the peak memory of the measured processes
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode, flop_registry

    twin = copy.deepcopy(network).cpu().train(training)
    parameters = [p for p in twin.parameters() if p.requires_grad]
    traffic = _Traffic(flop_registry)
    backward = {torch.ops.aten.convolution_backward: _convolution_backward_flops}
    counter = FlopCounterMode(display=False, custom_mapping=backward)
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        counter,
        traffic,
        torch.set_grad_enabled(training),
    ):
        with autocast("cpu", precision):
            result = twin(torch.rand(shape))
        if training:
            torch.autograd.grad(result.float().sum(), parameters, allow_unused=True)
    return Work(counter.get_total_flops() // 2, traffic.bytes)


def _convolution_backward_flops(grad: Any, x: Any, weight: Any, *options: Any, **_: Any) -> int:
    """Count the FLOPs of a convolution's gradients: for each as many as for the convolution.

    PyTorch's own formula ignores the groups. All arguments are shapes.
    """
    gradients = sum(options[-1][:2])  # output_mask: gradients of the input and of the weight
    return 2 * gradients * grad[0] * math.prod(grad[2:]) * math.prod(weight)


class _Traffic(TorchDispatchMode):
    """Dispatch mode that sums the bytes of the operands and results of `operations`."""

    def __init__(self, operations: Container[Any]) -> None:
        super().__init__()
        self.operations = operations
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._overloadpacket in self.operations:
            tensors = (x for x in tree_leaves((args, result)) if isinstance(x, Tensor))
            self.bytes += sum(x.numel() * x.element_size() for x in tensors)
        return result
