"""Benchmark the networks, the loader and the metrics against plain baselines.

    python scripts/benchmark.py
    python scripts/benchmark.py --device cuda --networks DTPNet --sizes 256 1024 --precisions bf16
    python scripts/benchmark.py --subjects runtimes --networks DTPNet-T DTPNet Restormer --sizes 256

The baseline of a network is its plain twin (tests/archs/plain_blocks.py): the same weights in
float32, written as the formulas of the papers, without our kernels. Variants and baseline run
interleaved; tables show medians and quartiles. On a CPU our commands reuse freed memory instead of
returning it to the system; the baseline is measured without this, like published code, and with it
("memory kept"). Peak memory is measured in a new process for each variant. The floor is the time
of the network's multiply-accumulates at the speed of a large matrix product, or of its memory
traffic at the speed of a large copy if that is longer, measured before and after the runs.

With --subjects runtimes, inference on a CPU is compared with ONNX Runtime and OpenVINO; see
benchmarks/runtimes.py.

A training step uses Adam and 4 patches of 96 x 96 (Restormer: 8 of 128 x 128), fewer if --memory is
too small for the baseline. Results go to benchmark.json and benchmark.png in --out, rewritten after
each table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from benchmarks import loader, metrics, networks, picture, runtimes, tables
from benchmarks.networks import Case

from basicsr.archs import ops
from basicsr.models.cost import network_cost, training_memory
from basicsr.utils.cli import add_device, command, gibibytes, positive, script_parser
from basicsr.utils.devices import PRECISIONS, available_memory, has_units, select_device
from basicsr.utils.errors import OptionsError
from basicsr.utils.files import atomic_write
from basicsr.utils.provenance import provenance
from basicsr.utils.registry import ARCH_REGISTRY

SUBJECTS = ("inference", "training", "loader", "metrics")
RUNTIMES = "runtimes"  # not by default: needs their packages
PATCHES = {"Restormer": (8, 128)}  # batch size and side, as in its paper
DEFAULT_PATCHES = (4, 96)
KERNELS = {"Triton": ops.uses_triton, "C": ops.uses_c}


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    device = select_device(options.device)
    for name in options.networks:
        ARCH_REGISTRY.entry(name)
    memory = options.memory * 2**30 if options.memory else available_memory(device)
    precisions = options.precisions or [
        each for each in ("fp32", "bf16") if has_units(device, each)
    ]
    if emulated := [each for each in precisions if not has_units(device, each)]:
        raise OptionsError(f"--precisions: {emulated[0]} is emulated on this device; leave it out")
    with torch.no_grad():
        kernels = next(
            (name for name, has in KERNELS.items() if has(torch.empty(0, device=device))), None
        )
    options.out.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {
        "provenance": provenance(device),
        "kernels": kernels,
        "repeats": options.repeats,
        "memory_limit": memory,
        "networks": [],
        "runtimes": [],
        "loader": None,
        "metrics": None,
    }

    def report(text: str) -> None:
        print(text, flush=True)
        save(document, options.out)

    print(tables.heading(document), flush=True)
    for case in cases(options, device, precisions, memory):
        row = networks.measure(case, options.repeats, memory, options.shrink)
        document["networks"].append(row)
        report(tables.network(row))
    for name in options.networks if RUNTIMES in options.subjects else ():
        for side in options.sizes:
            row = runtimes.compare(name, side, options.repeats)
            document["runtimes"].append(row)
            report(f"\n{runtimes.table(row)}")
    if "loader" in options.subjects:
        document["loader"] = loader.measure(batches=600 // options.shrink, repeats=options.repeats)
        report(tables.loader(document["loader"]))
    if "metrics" in options.subjects:
        document["metrics"] = metrics.measure(repeats=options.repeats)
        report(tables.metrics(document["metrics"]))


def save(document: dict[str, Any], folder: Path) -> None:
    """Write the results so far."""
    with atomic_write(folder / "benchmark.json") as file:
        file.write(json.dumps(document, indent=2).encode() + b"\n")
    if document["networks"]:
        picture.draw(folder / "benchmark.png", document)


def cases(
    options: argparse.Namespace, device: torch.device, precisions: list[str], memory: float
) -> list[Case]:
    """Return the cases to measure: each network's inference sizes and training step."""
    result = []
    for name in options.networks:
        if "inference" in options.subjects:
            for side in options.sizes:
                result.append(Case.square("inference", name, 1, side, precisions, device.type))
        if "training" in options.subjects:
            batch, side = options.patches or PATCHES.get(name, DEFAULT_PATCHES)
            case = Case.square("training", name, batch, side, precisions, device.type)
            case = case._replace(compiled=options.compiled)
            result.append(reduce_batch(case, memory))
    return result


def reduce_batch(case: Case, memory: float) -> Case:
    """Halve the batch until the baseline's training step is expected to fit into `memory`."""
    baseline = networks.plain_twin(case.build())
    while case.batch > 1:
        cost = network_cost(baseline, case.shape)
        if 1.3 * training_memory(baseline, cost.activations, averaged=False) < memory:
            break
        case = case._replace(batch=case.batch // 2)
    return case


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    add = parser.add_argument
    add("--subjects", nargs="+", choices=[*SUBJECTS, RUNTIMES], default=SUBJECTS)
    add("--networks", nargs="+", default=["DTPNet", "Restormer"], metavar="NAME")
    add_device(parser)
    add(
        "--precisions",
        nargs="+",
        choices=PRECISIONS,
        help="of our variants (default: fp32, and bf16 if the device computes it in hardware)",
    )
    add("--sizes", nargs="+", type=positive, default=[128, 256, 512], metavar="SIDE")
    add("--patches", nargs=2, type=positive, metavar=("BATCH", "SIDE"), help="for training")
    add("--compiled", action="store_true", help="also torch.compile, which takes minutes")
    add("--repeats", type=positive, default=5, help="runs of each variant (default: %(default)s)")
    add("--memory", type=gibibytes, metavar="GIB", help="limit (default: free memory)")
    add("--out", type=Path, default=Path("results/benchmark"), metavar="FOLDER")
    add(
        "--shrink",
        type=positive,
        default=1,
        metavar="N",
        help="measure the device and the loader with 1/N of the work, to try the script",
    )
    return parser


if __name__ == "__main__":
    main()
