"""Compare PyTorch as used here with ONNX Runtime and OpenVINO, on the same exported network.

    python scripts/benchmarks/runtimes.py --networks DTPNet-T PReNet --size 256 --runs 5

Each network, with random weights, is exported as ONNX for images of this size. Every runtime then
computes the same image in a process of its own, with as many threads as PyTorch uses; the time is
the shortest of --runs after a warm-up, and the memory the peak of the process. In bf16, PyTorch
runs under autocast and OpenVINO with inference precision bf16; differences are the largest to
PyTorch in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import modules and library from the folders above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch

from basicsr.archs import RestorationNetwork, build_network
from basicsr.inference.restorer import Restorer, RestorerSettings
from basicsr.utils.cli import command, positive, script_parser
from basicsr.utils.devices import peak_memory_gib, select_device
from basicsr.utils.files import atomic_write
from basicsr.utils.provenance import provenance

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


def measured(
    runtime: str, name: str, file: Path, side: int, threads: int, runs: int
) -> tuple[dict[str, Any], np.ndarray]:
    """Return the figures of a runtime and its result, in a process of its own."""
    image = np.random.default_rng(0).random((1, 3, side, side), dtype=np.float32)
    run = runner(runtime, name, file, threads)
    seconds = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        restored = run(image)
        seconds.append(time.perf_counter() - start)
    figures = {"seconds": min(seconds[1:]), "runs": seconds[1:]}
    figures["peak_gib"] = peak_memory_gib(torch.device("cpu"))
    return figures, restored.clip(0, 1)


def compare(name: str, side: int, threads: int, runs: int) -> dict[str, Any]:
    """Return the figures of all runtimes for a network."""
    variants: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(exported, name, side, file).result()
        for runtime in RUNTIMES:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                arguments = (runtime, name, file, side, threads, runs)
                figures, restored = pool.submit(measured, *arguments).result()
            if not variants:
                expected = restored
            figures["difference"] = float(np.abs(restored - expected).max())
            variants[runtime] = figures
    return {"network": name, "size": side, "variants": variants}


def table(row: dict[str, Any]) -> str:
    """Return the figures of a network as rows of a Markdown table."""
    reference = row["variants"][RUNTIMES[0]]["seconds"]
    rows = []
    for runtime, each in row["variants"].items():
        figures = (
            f"{each['seconds']:.3g} s",
            f"{reference / each['seconds']:.2f} x",
            f"{each['peak_gib']:.2f}",
            f"{each['difference']:.1e}",
        )
        rows.append(f"| {' | '.join((row['network'], runtime, *figures))} |")
    return "\n".join(rows)


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    threads = len(os.sched_getaffinity(0))
    print("| network | runtime | time | faster | peak memory (GiB) | difference |")
    print("| --- | --- | --- | --- | --- | --- |")
    document = {"provenance": provenance(torch.device("cpu")), "threads": threads, "networks": []}
    for name in options.networks:
        row = compare(name, options.size, threads, options.runs)
        document["networks"].append(row)
        print(table(row), flush=True)
        if options.json is not None:
            with atomic_write(options.json) as file:
                file.write(json.dumps(document, indent=2).encode() + b"\n")


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    add = parser.add_argument
    names = ["DTPNet-T", "DTPNet", "Restormer", "PReNet"]
    add("--networks", nargs="+", default=names, metavar="NAME")
    add("--size", type=positive, default=256, metavar="SIDE", help="default: %(default)s")
    add("--runs", type=positive, default=5, metavar="N", help="default: %(default)s")
    add("--json", type=Path, metavar="FILE", help="write all figures to this file")
    return parser


if __name__ == "__main__":
    main()
