"""Measure the time and memory of restoring one large image in strips.

    python scripts/benchmarks/photograph.py --size 3840 2160 --memory 10
    python scripts/benchmarks/photograph.py --weights DTPNet-T_any-rain --size 4000 3000 --memory 4
    python scripts/benchmarks/photograph.py --size 7680 4320 --memory 20 --features bf16
    python scripts/benchmarks/photograph.py --size 1024 1024 --memory 4 --whole

The network has random weights unless --weights are given, and the image random pixels. Memory is
the peak resident memory of the process (on a GPU: of its tensors). --whole also restores the image
as a whole, and reports the time and the largest difference of values in [0, 1].
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import torch

from basicsr.archs import build_network
from basicsr.inference.restorer import Restorer, RestorerSettings
from basicsr.models.pretrained import saved_network, weights_file
from basicsr.utils.cli import (
    add_device,
    add_memory,
    add_precision,
    command,
    positive,
    script_parser,
)
from basicsr.utils.devices import peak_memory_gib, select_device, usable_precision
from basicsr.utils.provenance import provenance


def measure(
    network: str,
    size: tuple[int, int],
    memory: float,
    features: Any = "memory",
    precision: str = "fp32",
    device: str = "auto",
    whole: bool = False,
    weights: str | None = None,
) -> dict[str, Any]:
    """Restore an image in strips and return the figures.

    Args:
        network: registered name of the network.
        size: width and height of the image.
        memory: budget in GiB.
        features: where strips keep feature maps: "memory", "bf16" or "disk".
        precision: "fp32", "bf16" or "fp16".
        device: "auto", "cuda" or "cpu".
        whole: also restore the image as a whole, and compare.
        weights: weights of the network to measure instead, as `weights_file` takes them.
    """
    torch_device = select_device(device)
    precision = usable_precision(precision, torch_device)
    torch.manual_seed(0)
    net = (
        build_network({"type": network})
        if weights is None
        else saved_network(weights_file(weights))[0]
    )
    width, height = size
    image = np.random.default_rng(0).integers(256, size=(height, width, 3), dtype=np.uint8)
    settings = RestorerSettings(precision=precision, memory_gib=memory, features=features)
    restorer = Restorer(net, torch_device, settings)
    restorer(image[:64, :64])  # warm-up
    restored, seconds = timed(restorer, image)
    figures = {"seconds": seconds, "peak_gib": peak_memory_gib(torch_device)}
    if whole:
        restorer.settings = RestorerSettings(precision=precision)
        restorer.supports_strips = False
        expected, seconds = timed(restorer, image)
        difference = float(np.abs(restored - expected).max())
        figures |= {"whole_seconds": seconds, "difference": difference}
    return {
        "network": network if weights is None else weights,
        "size": list(size),
        "memory": memory,
        "features": features,
        "precision": precision,
        **figures,
        "provenance": provenance(torch_device),
    }


def timed(restorer: Restorer, image: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the restored image and the seconds it took."""
    start = time.perf_counter()
    return restorer(image), time.perf_counter() - start


@command
def main(arguments: list[str] | None = None) -> None:
    parser = script_parser(__doc__)
    add = parser.add_argument
    measured = parser.add_mutually_exclusive_group()
    measured.add_argument(
        "--network", default="DTPNet", metavar="NAME", help="default: %(default)s"
    )
    measured.add_argument("--weights", metavar="FILE", help="weights, or the name of shipped ones")
    add("--size", nargs=2, type=positive, required=True, metavar=("WIDTH", "HEIGHT"))
    add_memory(parser, required=True)
    add("--features", choices=["memory", "bf16", "disk"], default="memory")
    add_precision(parser)
    add_device(parser)
    add("--whole", action="store_true", help="also restore the whole image at once, and compare")
    print(json.dumps(measure(**vars(parser.parse_args(arguments))), indent=2))


if __name__ == "__main__":
    main()
