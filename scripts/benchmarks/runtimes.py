"""Comparison of PyTorch as used here with ONNX Runtime and OpenVINO, on the same exported network.

Each network, with random weights, is exported as ONNX for images of one size. Every runtime has a
process of its own, with as many threads as PyTorch uses, and they compute the same image in turns.
The time is the shortest run after a warm-up, and the memory the peak of the process. In bf16,
PyTorch runs under autocast and OpenVINO with inference precision bf16; differences are the largest
to PyTorch in float32.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from basicsr.archs import RestorationNetwork, build_network
from basicsr.inference.restorer import Restorer, RestorerSettings
from basicsr.utils.devices import has_units, peak_memory_gib, select_device

RUNTIMES = ("PyTorch fp32", "PyTorch bf16", "ONNX Runtime fp32", "OpenVINO fp32", "OpenVINO bf16")
Run = Callable[[np.ndarray], np.ndarray]
"""Restores 1 x C x H x W float32 values."""


def network_of(name: str) -> RestorationNetwork:
    """Return the network with the same random weights at every call."""
    torch.manual_seed(0)
    return build_network({"type": name}).eval().requires_grad_(False)


def exported(name: str, side: int, file: Path) -> None:
    """Export a network for images of this size."""
    image = torch.rand(1, 3, side, side)
    with torch.no_grad():
        program = torch.export.export(network_of(name), (image,), strict=False)
        torch.onnx.export(
            program, f=file, input_names=["lq"], dynamo=True, external_data=False, verbose=False
        )


def runner(runtime: str, name: str, file: Path, threads: int) -> Run:
    """Return the function with which a runtime computes the network."""
    precision = runtime.rpartition(" ")[2]
    if runtime.startswith("PyTorch"):
        torch.set_num_threads(threads)
        settings = RestorerSettings(precision=precision)
        restorer = Restorer(network_of(name), select_device("cpu"), settings)

        def in_pytorch(image: np.ndarray) -> np.ndarray:
            return restorer(image[0].transpose(1, 2, 0)).transpose(2, 0, 1)[None]

        return in_pytorch
    if runtime.startswith("ONNX"):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(file, options)
        return lambda image: np.asarray(session.run(None, {"lq": image})[0])
    import openvino

    config = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(str(file), "CPU", config)
    return lambda image: np.asarray(compiled(image)[0])


class Measured:
    """A runtime with a network, which restores the same image at every call."""

    def __init__(self, runtime: str, name: str, file: Path, side: int, threads: int) -> None:
        self.run = runner(runtime, name, file, threads)
        self.image = np.random.default_rng(0).random((1, 3, side, side), dtype=np.float32)

    def __call__(self) -> tuple[float, np.ndarray]:
        """Return the seconds of a run, and the restored image."""
        start = time.perf_counter()
        restored = self.run(self.image)
        return time.perf_counter() - start, restored.clip(0, 1)


_measured: Measured | None = None  # of a runtime's process


def _prepare(*arguments: Any) -> None:
    global _measured
    _measured = Measured(*arguments)


def _run() -> tuple[float, np.ndarray, float]:
    assert _measured is not None
    return *_measured(), peak_memory_gib(torch.device("cpu"))


def compare(name: str, side: int, runs: int) -> dict[str, Any]:
    """Return the figures for a network of the runtimes that the processor does not emulate."""
    cpu = torch.device("cpu")
    names = [each for each in RUNTIMES if has_units(cpu, each.rpartition(" ")[2])]
    threads = torch.get_num_threads()
    context = get_context("spawn")
    figures: dict[str, dict[str, Any]] = {runtime: {"runs": []} for runtime in names}
    with ExitStack() as stack:
        file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "network.onnx"
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            pool.submit(exported, name, side, file).result()
        pools = {runtime: stack.enter_context(ProcessPoolExecutor(1, context)) for runtime in names}
        for runtime, pool in pools.items():
            pool.submit(_prepare, runtime, name, file, side, threads).result()
        expected = None
        for number in range(runs + 1):  # the first run is a warm-up
            for runtime, pool in pools.items():
                seconds, restored, peak = pool.submit(_run).result()
                expected = restored if expected is None else expected
                if number:
                    figures[runtime]["runs"].append(seconds)
                figures[runtime]["peak_gib"] = peak
                figures[runtime]["difference"] = float(np.abs(restored - expected).max())
    for each in figures.values():
        each["seconds"] = min(each["runs"])
    return {"network": name, "size": side, "threads": threads, "variants": figures}


HEADINGS = ("network", "side", "runtime", "time", "faster", "peak memory (GiB)", "difference")


def table(row: dict[str, Any]) -> str:
    """Return the figures of a network as a Markdown table."""
    reference = row["variants"][RUNTIMES[0]]["seconds"]
    rows = [HEADINGS, ("---",) * len(HEADINGS)]
    for runtime, each in row["variants"].items():
        figures = (
            f"{each['seconds']:.3g} s",
            f"{reference / each['seconds']:.2f} x",
            f"{each['peak_gib']:.2f}",
            f"{each['difference']:.1e}",
        )
        rows.append((row["network"], str(row["size"]), runtime, *figures))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
