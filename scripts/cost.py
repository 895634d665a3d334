"""Print the cost of networks: parameters, multiply-accumulates, training memory and latency.

    python scripts/cost.py --networks DTPNet Restormer --size 256 256 --json cost.json

The input is one image of H x W pixels. If a network needs multiples of some number, the size is
rounded up, as test.py pads, and the table says so. MACs are those of convolutions and matrix
products; the next column has the convolutions alone. Activations are what one training image of
that size keeps for the backward pass. Latency is the median of --runs forward passes on this
machine, with quartiles; --runs 0 skips it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from basicsr.archs import build_network
from basicsr.models.cost import Shape, latency, network_cost
from basicsr.utils.cli import add_device, add_precision, command, positive, script_parser
from basicsr.utils.devices import select_device, usable_precision
from basicsr.utils.files import atomic_write
from basicsr.utils.provenance import provenance
from basicsr.utils.registry import ARCH_REGISTRY

COST_COLUMNS = ("network", "parameters", "size", "GMACs", "of convolutions", "activations (GiB)")
LATENCY_COLUMNS = ("latency (ms)", "quartiles (ms)")


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    device = select_device(options.device)
    for name in options.networks:
        ARCH_REGISTRY.entry(name)
    precision = options.precision  # of activations alone, perhaps for another device
    if options.runs:
        precision = usable_precision(precision, device)
    environment = provenance(device)
    height, width = options.size
    print(
        f"One image of {width} x {height}, {precision}; "
        f"latency on {environment['device']}, torch {environment['torch']}\n"
    )
    columns = COST_COLUMNS + LATENCY_COLUMNS if options.runs else COST_COLUMNS
    print(_line(columns), _line(("---",) * len(columns)), sep="\n")
    networks = []
    for name in options.networks:
        cost = cost_of(name, (height, width), device, precision, options.runs)
        networks.append(cost)
        print(_line(cells(cost)[: len(columns)]), flush=True)
    if any(cost["reconstruction"] for cost in networks):
        print("\n(reconstruction): built from a description; the authors' own network may differ")
    if options.json:
        document = {
            "size": [height, width],
            "precision": precision,
            "runs": options.runs,
            "networks": networks,
            "provenance": environment,
        }
        with atomic_write(options.json) as file:
            file.write(json.dumps(document, indent=2).encode() + b"\n")


def cost_of(
    name: str, size: tuple[int, int], device: torch.device, precision: str, runs: int
) -> dict[str, Any]:
    """Return a network's entry in the JSON file.

    Args:
        name: registered name of the network.
        size: height and width of the image.
        device: where latency is measured.
        precision: "fp32", "bf16" or "fp16".
        runs: timed forward passes; 0 skips the latency.
    """
    network = build_network({"type": name})
    height, width = (network.fitting_side(side) for side in size)
    shape = (1, network.in_channels, height, width)
    return {
        "network": name,
        "reconstruction": network.reconstruction,
        "size": [height, width],
        "padded": [height, width] != list(size),
        **network_cost(network, shape, precision)._asdict(),
        "latency": latency_of(network, shape, device, precision, runs) if runs else None,
    }


def latency_of(
    network: nn.Module, shape: Shape, device: torch.device, precision: str, runs: int
) -> dict[str, float] | str:
    """Return median and quartiles in seconds, or "out of memory"."""
    try:
        return latency(network, shape, device, precision, runs)._asdict()
    except MemoryError:
        return "out of memory"


def cells(cost: dict[str, Any]) -> tuple[str, ...]:
    """Return a network's row of the table."""
    height, width = cost["size"]
    return (
        cost["network"] + (" (reconstruction)" if cost["reconstruction"] else ""),
        f"{cost['parameters']:,}",
        f"{width} x {height}" + (" (padded)" if cost["padded"] else ""),
        f"{cost['macs'] / 1e9:.2f}",
        f"{cost['convolution_macs'] / 1e9:.2f}",
        f"{cost['activations'] / 2**30:.2f}",
        *_latency_cells(cost["latency"]),
    )


def _latency_cells(measured: dict[str, float] | str | None) -> tuple[str, str]:
    if not isinstance(measured, dict):
        return measured or "", ""
    median, lower, upper = (_milliseconds(measured[key]) for key in ("median", "lower", "upper"))
    return median, f"{lower} to {upper}"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.4g}" if seconds < 10 else f"{1000 * seconds:.0f}"


def _line(texts: tuple[str, ...]) -> str:
    return "| " + " | ".join(texts) + " |"


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    names = ARCH_REGISTRY.names()
    parser.add_argument(
        "--networks",
        nargs="+",
        default=names,
        metavar="NAME",
        help=f"{', '.join(names)} (default: all)",
    )
    parser.add_argument("--size", nargs=2, type=positive, default=[256, 256], metavar=("H", "W"))
    add_device(parser)
    add_precision(parser)
    parser.add_argument(
        "--runs",
        type=_not_negative,
        default=20,
        metavar="N",
        help="timed forward passes (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results here")
    return parser


def _not_negative(text: str) -> int:
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError("at least 0")
    return number


if __name__ == "__main__":
    main()
