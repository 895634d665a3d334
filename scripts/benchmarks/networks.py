"""Benchmark of a network against its plain twin: time of interleaved runs, peak memory."""

from __future__ import annotations

import gc
import importlib.util
import inspect
import resource
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import default_rng
from torch import nn

from basicsr.archs import build_network, ops
from basicsr.inference.restorer import Restorer, RestorerSettings
from basicsr.utils import devices
from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import ARCH_REGISTRY

from .floor import Ceilings, measure_ceilings, timed, wait, work_of
from .timing import interleaved

OUT_OF_MEMORY = "out of memory"
BASELINE = "baseline"


class Variant(NamedTuple):
    """Way to compute a case.

    `kind` is one of:

    - "fast": as our commands do it, in inference in strips where test.py would use them
    - "no graphs": on a GPU, launching every kernel instead of replaying CUDA graphs
    - "no kernels": on a GPU, with PyTorch's operations instead of our Triton kernels
    - "selective", "blocks": with activation checkpointing
    - "compiled": with torch.compile
    - "baseline": the plain twin
    - "baseline, memory kept": the plain twin, reusing freed memory on a CPU as all but the baseline
      do
    """

    kind: str
    precision: str

    def __str__(self) -> str:
        return self.kind if self.is_plain else f"{self.kind} {self.precision}"

    @property
    def is_plain(self) -> bool:
        return self.kind.startswith(BASELINE)


class Case(NamedTuple):
    """Subject to measure: inference or training steps of a registered network on a batch.

    `compiled` measures training with torch.compile too.
    """

    subject: str
    network: str
    batch: int
    size: tuple[int, int]
    precisions: tuple[str, ...]
    device: str
    compiled: bool = False

    @classmethod
    def square(
        cls,
        subject: str,
        network: str,
        batch: int,
        side: int,
        precisions: Iterable[str],
        device: str,
    ) -> Case:
        """Return the case of square images, at least `side` wide, whose size fits the network."""
        with torch.device("meta"):
            side = build_network({"type": network}).fitting_side(side)
        return cls(subject, network, batch, (side, side), tuple(precisions), device)

    def variants(self) -> list[Variant]:
        """Return the variants to compare, the baseline, always in float32, last."""
        on_gpu = self.device == "cuda"
        kinds = ["fast"]
        if self.subject == "inference":
            kinds += ["no graphs", "no kernels"] if on_gpu else []
        else:
            options = inspect.signature(ARCH_REGISTRY.entry(self.network).cls).parameters
            kinds += ["selective", "blocks"] if "activation_checkpointing" in options else []
            kinds += ["no kernels"] if on_gpu else []
            kinds += ["compiled"] if self.compiled else []
        plain = [BASELINE] if on_gpu else [f"{BASELINE}, memory kept", BASELINE]
        return [
            *(Variant(kind, precision) for precision in self.precisions for kind in kinds),
            *(Variant(kind, "fp32") for kind in plain),
        ]

    def build(self, kind: str = "fast") -> nn.Module:
        """Return the network with the same random weights at every call."""
        torch.manual_seed(0)
        extra = {"activation_checkpointing": kind} if kind in ("selective", "blocks") else {}
        return build_network({"type": self.network, **extra})

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.batch, 3, *self.size)


def measure(case: Case, repeats: int, memory: float, shrink: int = 1) -> dict[str, Any]:
    """Measure time and memory of all variants of a case.

    The device's speed is measured before and after the runs, as a shared machine's speed changes;
    the higher one counts.

    Args:
        case: what to measure.
        repeats: timed runs of each variant.
        memory: limit in bytes. A variant that needs more is reported as out of memory.
        shrink: divides the size of the measurement of the device's speed.

    Returns:
        The case's entry in benchmark.json: for each variant seconds (median, quartiles, all runs)
        and bytes.
    """
    release_memory()
    variants: dict[str, dict[str, Any]] = {}
    for variant in case.variants():  # before this process allocates memory for its own runs
        variants[str(variant)] = {**variant._asdict(), "memory": peak_memory(case, variant, memory)}
    timed_runs = {
        str(variant): timed_run(case, variant)
        for variant in case.variants()
        if variants[str(variant)]["memory"] != OUT_OF_MEMORY
    }
    before = ceilings_of(case, shrink)
    runs = interleaved(timed_runs, repeats)
    after = ceilings_of(case, shrink)
    floors = {}
    for precision in before:
        work = work_of(case.build(), case.shape, precision, case.subject == "training")
        ceilings = Ceilings(*map(max, before[precision], after[precision]))
        floors[precision] = {
            **work._asdict(),
            "ceilings": ceilings._asdict(),
            **work.floor(ceilings),
        }
    for name, figures in runs.items():
        variants[name]["seconds"] = spread(figures["runs"])
        shortest = floors[variants[name]["precision"]]["seconds"]
        variants[name]["share_of_floor"] = shortest / variants[name]["seconds"]["median"]
    return {**case._asdict(), "floors": floors, "variants": variants, "ratios": ratios(variants)}


def ceilings_of(case: Case, shrink: int) -> dict[str, Ceilings]:
    return {
        precision: measure_ceilings(torch.device(case.device), precision, shrink)
        for precision in {"fp32", *case.precisions}
    }


def timed_run(case: Case, variant: Variant) -> Callable[[], float]:
    """Return a function that runs the variant once and returns the seconds it took."""
    device, run = torch.device(case.device), run_of(case, variant)

    def on_cpu() -> float:
        devices.keep_freed_memory(variant.kind != BASELINE)
        if variant.kind == BASELINE:
            devices.release_freed_memory()
        for _ in range(warm_up_runs(case)):
            run()
        seconds = timed(run, device)
        devices.keep_freed_memory()
        return seconds

    if device.type == "cpu":
        return on_cpu
    for _ in range(warm_up_runs(case)):
        run()
    return lambda: timed(run, device)


def release_memory() -> None:
    devices.release_freed_memory()
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def warm_up_runs(case: Case) -> int:
    """Return the number of untimed runs, which set up memory, optimizers, GPUs and graphs."""
    return 3 if case.device == "cuda" or case.subject == "training" else 1


def spread(runs: Any) -> dict[str, Any]:
    lower, median, upper = (float(x) for x in np.percentile(runs, [25, 50, 75]))
    return {"median": median, "lower": lower, "upper": upper, "runs": runs}


def ratios(variants: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return each measured variant's speed and peak memory relative to the baseline's."""
    baseline = variants[BASELINE]
    if baseline["memory"] == OUT_OF_MEMORY:
        return {}
    return {
        name: {
            "speed": baseline["seconds"]["median"] / each["seconds"]["median"],
            "memory": each["memory"]["peak"] / baseline["memory"]["peak"],
        }
        for name, each in variants.items()
        if name != BASELINE and each["memory"] != OUT_OF_MEMORY
    }


def run_of(case: Case, variant: Variant) -> Callable[[], object]:
    """Return a function that computes one forward pass or one training step of a variant."""
    device = torch.device(case.device)
    network = case.build(variant.kind)
    network = plain_twin(network) if variant.is_plain else channels_last(network)
    make = inference if case.subject == "inference" else training
    run = make(network.to(device), case, variant)
    return without_kernels(run) if variant.kind == "no kernels" else run


def without_kernels(run: Callable[[], object]) -> Callable[[], object]:
    """Return `run` with PyTorch's operations instead of our Triton kernels."""
    present = ops.dispatch.HAS_TRITON

    def eager() -> None:
        ops.dispatch.HAS_TRITON = False
        try:
            run()
        finally:
            ops.dispatch.HAS_TRITON = present

    return eager


def channels_last(x: Any) -> Any:
    return x.to(memory_format=torch.channels_last)


def inference(network: nn.Module, case: Case, variant: Variant) -> Callable[[], object]:
    network.eval()
    device = torch.device(case.device)
    if variant.is_plain:
        x = torch.rand(case.shape, device=device)
        return torch.inference_mode()(lambda: network(x))
    restorer = Restorer(network, device, RestorerSettings(precision=variant.precision))
    if variant.kind == "no graphs":
        restorer.call = network
    image = default_rng(0).integers(256, size=(*case.size, 3), dtype=np.uint8)
    return lambda: restorer(image)


def training(network: nn.Module, case: Case, variant: Variant) -> Callable[[], object]:
    """Return a training step with Adam on the L1 loss."""
    network.train()
    call = torch.compile(network, dynamic=False) if variant.kind == "compiled" else network
    x = torch.rand(case.shape, device=case.device)
    x = x if variant.is_plain else channels_last(x)
    target = torch.rand_like(x)
    fused = None if variant.is_plain else True
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=fused)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        with devices.autocast(case.device, variant.precision):
            loss = F.l1_loss(call(x).float(), target)
        loss.backward()
        optimizer.step()

    return run


def plain_twin(network: nn.Module) -> nn.Module:
    """Return the reference implementation of the tests, in contiguous memory format."""
    file = Path(__file__).parents[2] / "tests" / "archs" / "plain_blocks.py"
    if "plain_blocks" not in sys.modules:
        specification = importlib.util.spec_from_file_location("plain_blocks", file)
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        sys.modules["plain_blocks"] = module
    return sys.modules["plain_blocks"].plain_twin(network)


def peak_memory(case: Case, variant: Variant, limit: float) -> dict[str, int] | str:
    """Run the variant and return its memory in bytes, at the peak and before.

    On a CPU this is the resident memory (VmHWM) of a new process, including Python and PyTorch; on
    a GPU it is the memory allocated by PyTorch.
    """
    if case.device == "cuda":
        release_memory()
        torch.cuda.reset_peak_memory_stats()
        return _peak(case, variant, torch.get_num_threads(), limit)
    context = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_peak, case, variant, torch.get_num_threads(), limit).result()
        except BrokenProcessPool:  # killed by the kernel
            return OUT_OF_MEMORY


def _peak(case: Case, variant: Variant, threads: int, limit: float) -> dict[str, int] | str:
    torch.set_num_threads(threads)
    device = torch.device(case.device)
    if device.type == "cpu":
        devices.keep_freed_memory(variant.kind != BASELINE)
        # without a limit Linux overcommits memory and kills some process
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit), resource.RLIM_INFINITY))
    else:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total))
    try:
        run = run_of(case, variant)
        before = _memory(device, "VmRSS")
        for _ in range(warm_up_runs(case)):
            run()
        wait(device)
    except OptionsError:  # the limit is too small even for strips
        return OUT_OF_MEMORY
    except (RuntimeError, MemoryError, OSError) as error:
        if devices.is_out_of_memory(error):
            return OUT_OF_MEMORY
        raise
    return {"peak": _memory(device, "VmHWM"), "before": before}


def _memory(device: torch.device, field: str) -> int:
    if device.type == "cuda":
        peak = field == "VmHWM"
        return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise AssertionError(field)
