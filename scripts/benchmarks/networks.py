"""A network against its plain twin: seconds in turns, and peak memory in fresh processes."""

from __future__ import annotations

import importlib.util
import inspect
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from basicsr.archs import build_network
from basicsr.models.captured import CapturedNetwork
from basicsr.utils.devices import is_out_of_memory
from basicsr.utils.registry import ARCH_REGISTRY
from basicsr.utils.timing import in_turns

from .floor import Ceilings, timed, wait, work_of

OUT_OF_MEMORY = "out of memory"
BASELINE = "baseline"


class Case(NamedTuple):
    """What is measured: "inference" or "training" steps of a registered network on a batch.

    The baseline is the plain twin, always in float32.
    """

    subject: str
    network: str
    batch: int
    size: tuple[int, int]
    precision: str
    device: str

    def variants(self) -> list[str]:
        """What is compared, the baseline last."""
        on_gpu = self.device == "cuda"
        if self.subject == "inference":
            return ["fast", *(["graphs"] if on_gpu else []), BASELINE]
        options = inspect.signature(ARCH_REGISTRY.entry(self.network).cls).parameters
        spared = ["checkpointed"] if "activation_checkpointing" in options else []
        return ["fast", *spared, *(["compiled"] if on_gpu else []), BASELINE]

    def build(self, checkpointed: bool = False) -> nn.Module:
        torch.manual_seed(0)
        extra = {"activation_checkpointing": True} if checkpointed else {}
        return build_network({"type": self.network, **extra})

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.batch, 3, *self.size)


def measure(case: Case, ceilings: Ceilings, repeats: int, memory: float) -> dict[str, Any]:
    """The row of a document: for each variant seconds (median, quartiles, all runs) and bytes.

    A variant that `memory` bytes are not enough for is only said to need more.
    """
    variants: dict[str, Any] = {}
    for name in case.variants():
        variants[name] = {"memory": peak_memory(case, name, memory)}
    fitting = [name for name, told in variants.items() if told["memory"] != OUT_OF_MEMORY]
    device = torch.device(case.device)
    runs = {name: run_of(case, name) for name in fitting}
    for run in runs.values():
        for _ in range(passes(case)):
            run()
    turns = {name: (lambda run=run: timed(run, device)) for name, run in runs.items()}
    work = work_of(case.build(), case.shape, case.precision, case.subject == "training")
    floor = work.floor(ceilings)
    for name, figures in in_turns(turns, repeats).items():
        seconds = spread(figures["runs"])
        variants[name].update(seconds=seconds, share_of_floor=floor["seconds"] / seconds["median"])
    return {
        **case._asdict(),
        "work": work._asdict(),
        "floor": floor,
        "variants": variants,
        "ratios": ratios(variants),
    }


def passes(case: Case) -> int:
    """How many it takes until all are alike: optimizers and GPUs set up, graphs are captured."""
    return 3 if case.device == "cuda" else 2 if case.subject == "training" else 1


def spread(runs: Any) -> dict[str, Any]:
    lower, median, upper = (float(x) for x in np.percentile(runs, [25, 50, 75]))
    return {"median": median, "lower": lower, "upper": upper, "runs": runs}


def ratios(variants: dict[str, Any]) -> dict[str, dict[str, float]]:
    """How many times as fast as the baseline, and with what part of its peak memory; of what could
    be measured."""
    baseline = variants[BASELINE]
    if baseline["memory"] == OUT_OF_MEMORY:
        return {}
    return {
        name: {
            "speed": baseline["seconds"]["median"] / told["seconds"]["median"],
            "memory": told["memory"]["peak"] / baseline["memory"]["peak"],
        }
        for name, told in variants.items()
        if name != BASELINE and told["memory"] != OUT_OF_MEMORY
    }


def run_of(case: Case, variant: str) -> Callable[[], object]:
    """One pass, or one training step, of a variant of the network."""
    device = torch.device(case.device)
    network = case.build(variant == "checkpointed")
    x = torch.rand(case.shape)
    if variant == BASELINE:
        network = plain_twin(network)
    else:
        network = network.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    network, x = network.to(device), x.to(device)
    low = case.precision == "bf16" and variant != BASELINE
    make = inference if case.subject == "inference" else training
    step = make(network, x, variant)

    def run() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            step()

    return run


def inference(network: nn.Module, x: torch.Tensor, variant: str) -> Callable[[], object]:
    network.eval()
    call: Any = CapturedNetwork(network) if variant == "graphs" else network

    @torch.inference_mode()
    def run() -> object:
        return call(x)

    return run


def training(network: nn.Module, x: torch.Tensor, variant: str) -> Callable[[], object]:
    """Steps of Adam on the absolute error."""
    network.train()
    call = torch.compile(network, dynamic=False) if variant == "compiled" else network
    target = torch.rand_like(x)
    fused = True if x.is_cuda and variant != BASELINE else None
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=fused)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = F.l1_loss(call(x).float(), target)
        with torch.autocast(x.device.type, enabled=False):
            loss.backward()
            optimizer.step()

    return run


def plain_twin(network: nn.Module) -> nn.Module:
    """The network as its formulas read, in standard memory format: the tests' reference."""
    file = Path(__file__).parents[2] / "tests" / "archs" / "plain_blocks.py"
    if "plain_blocks" not in sys.modules:
        specification = importlib.util.spec_from_file_location("plain_blocks", file)
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        sys.modules["plain_blocks"] = module
    return sys.modules["plain_blocks"].plain_twin(network)


def peak_memory(case: Case, variant: str, limit: float) -> dict[str, int] | str:
    """Bytes at the peak of some passes in a process of its own, and before them.

    On a CPU they are what the kernel says is resident (VmHWM), with Python and PyTorch, on a GPU
    what PyTorch's allocator has given out.
    """
    context = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_peak, case, variant, torch.get_num_threads(), limit).result()
        except BrokenProcessPool:  # ended by the kernel
            return OUT_OF_MEMORY


def _peak(case: Case, variant: str, threads: int, limit: float) -> dict[str, int] | str:
    torch.set_num_threads(threads)
    device = torch.device(case.device)
    if device.type == "cpu":  # else Linux grants more than there is, and ends some process
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit), resource.RLIM_INFINITY))
    else:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total))
    try:
        run = run_of(case, variant)
        before = _held(device, "VmRSS")
        for _ in range(passes(case)):
            run()
        wait(device)
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or is_out_of_memory(error):
            return OUT_OF_MEMORY
        raise
    return {"peak": _held(device, "VmHWM"), "before": before}


def _held(device: torch.device, field: str) -> int:
    if device.type == "cuda":
        peak = field == "VmHWM"
        return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise AssertionError(field)
