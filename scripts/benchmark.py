"""How fast the networks, the loader and the metrics are, against plain baselines.

    python scripts/benchmark.py
    python scripts/benchmark.py --device cuda --networks DTPNet --sizes 256 1024 --precisions bf16

The baseline of a network is its plain twin (tests/archs/plain_blocks.py): the same weights, the
formulas as they read, float32. Fast and baseline run in turns; tables give medians and quartiles.
On a CPU the project's commands keep freed memory, instead of asking the system for it anew; the
baseline does not, like published code, and does once more ("memory kept"). Peak memory is that of
a process of its own per variant. The floor is what the network's multiply-accumulates or, if
longer, its traffic would take at the speed of a large matrix product and of a large copy on the
same device, before or after its runs; the share of it that is reached stands beside.

Training is a step of Adam: DTPNet on 4 patches of 96 x 96, Restormer on 8 of 128 x 128, others as
DTPNet; fewer patches where --memory is too small for the baseline. Writes --out/benchmark.json and
benchmark.png, anew after each table: a run that is cut off leaves what it has measured. A GPU's
figures need a GPU: without one they say "not yet measured". There DERAIN_FAST_GPU=1 in the
environment adds the Triton kernels to all but the baseline. On a CPU float32 is computed with the
operator in C where there is a compiler, but not in the baseline.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from benchmarks import loader, metrics, networks, picture, tables
from benchmarks.networks import Case

from basicsr.archs import ops
from basicsr.models.cost import network_cost, training_memory
from basicsr.utils.cli import command, gibibytes
from basicsr.utils.devices import PRECISIONS, available_memory, select_device
from basicsr.utils.files import atomic_write
from basicsr.utils.provenance import provenance
from basicsr.utils.registry import ARCH_REGISTRY

SUBJECTS = ("inference", "training", "loader", "metrics")
PATCHES = {"Restormer": (8, 128)}  # number and side, as in its paper
OTHER_PATCHES = (4, 96)
KERNELS = {"Triton": ops.has_kernels, "C": ops.has_c}


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    device = select_device(options.device)
    for name in options.networks:
        ARCH_REGISTRY.entry(name)
    memory = options.memory * 2**30 if options.memory else available_memory(device)
    precisions = options.precisions or usual_precisions(device)
    on_device = torch.empty(0, device=device)
    options.out.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {
        "provenance": provenance(device),
        "kernels": next((name for name, has in KERNELS.items() if has(on_device)), None),
        "repeats": options.repeats,
        "memory_limit": memory,
        "networks": [],
        "loader": None,
        "metrics": None,
    }

    def tell(text: str) -> None:
        print(text, flush=True)
        save(document, options.out)

    print(tables.heading(document), flush=True)
    for case in cases(options, device, precisions, memory):
        row = networks.measure(case, options.repeats, memory, options.shrink)
        document["networks"].append(row)
        tell(tables.network(row))
    side = options.shrink  # the loader's and the metrics' own measure shrinks with the rest
    if "loader" in options.subjects:
        document["loader"] = loader.measure(batches=600 // side, repeats=options.repeats)
        tell(tables.loader(document["loader"]))
    if "metrics" in options.subjects:
        document["metrics"] = metrics.measure(repeats=options.repeats)
        tell(tables.metrics(document["metrics"]))
    if device.type != "cuda":
        print(tables.NOT_MEASURED)


def save(document: dict[str, Any], folder: Path) -> None:
    """Write what is measured so far."""
    with atomic_write(folder / "benchmark.json") as file:
        file.write(json.dumps(document, indent=2).encode() + b"\n")
    if document["networks"]:
        picture.draw(folder / "benchmark.png", document)


def cases(
    options: argparse.Namespace, device: torch.device, precisions: list[str], memory: float
) -> list[Case]:
    chosen = []
    for name in options.networks:

        def case(subject: str, batch: int, side: int, name: str = name) -> Case:
            size = fitting(name, side)
            return Case(subject, name, batch, size, tuple(precisions), device.type)

        if "inference" in options.subjects:
            chosen += [case("inference", 1, side) for side in options.sizes]
        if "training" in options.subjects:
            number, side = options.patches or PATCHES.get(name, OTHER_PATCHES)
            chosen.append(within(case("training", number, side), memory))
    return chosen


def fitting(name: str, side: int) -> tuple[int, int]:
    """The square that the network takes; at least `side` wide."""
    multiple: Any = getattr(ARCH_REGISTRY.entry(name).cls, "size_multiple", 1)
    return (-(-side // multiple) * multiple,) * 2


def within(case: Case, memory: float) -> Case:
    """With half the patches, and half of them again, until the baseline should fit."""
    baseline = networks.plain_twin(case.build())
    while case.batch > 1:
        cost = network_cost(baseline, (case.batch, 3, *case.size))
        if 1.3 * training_memory(baseline, cost.activations, averaged=False) < memory:
            break
        case = case._replace(batch=case.batch // 2)
    return case


def usual_precisions(device: torch.device) -> list[str]:
    """fp32, and bf16 where the device has units for it."""
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        cpuinfo = Path("/proc/cpuinfo")
        flags = cpuinfo.read_text() if cpuinfo.exists() else ""
        has_bf16 = "amx_bf16" in flags or "avx512_bf16" in flags
    return ["fp32", "bf16"] if has_bf16 else ["fp32"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--subjects", nargs="+", choices=SUBJECTS, default=SUBJECTS)
    add("--networks", nargs="+", default=["DTPNet", "Restormer"], metavar="NAME")
    add("--device", choices=["auto", "cuda", "cpu"], default="auto")
    add(
        "--precisions",
        nargs="+",
        choices=PRECISIONS,
        help="of the fast network; bf16 is left out by default where there are no units for it",
    )
    add("--sizes", nargs="+", type=_positive, default=[128, 256, 512], metavar="SIDE")
    add("--patches", nargs=2, type=_positive, metavar=("NUMBER", "SIDE"), help="of training")
    add("--repeats", type=_positive, default=5, help="of every variant (default: %(default)s)")
    add("--memory", type=gibibytes, metavar="GIB", help="a limit (default: what is free)")
    add("--out", type=Path, default=Path("results/benchmark"), metavar="FOLDER")
    add(
        "--shrink",
        type=_positive,
        default=1,
        metavar="N",
        help="measure ceilings and the loader with an Nth of the work, to try this out",
    )
    return parser


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


if __name__ == "__main__":
    main()
