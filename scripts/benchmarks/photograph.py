"""Seconds and memory that one image of any size takes in strips.

    python scripts/benchmarks/photograph.py --size 3840 2160 --memory 10
    python scripts/benchmarks/photograph.py --size 7680 4320 --memory 20 --features bf16
    python scripts/benchmarks/photograph.py --size 1024 1024 --memory 4 --whole

The network has random weights and the image random pixels. Memory is the most that the process
held, as the kernel counts it (on a GPU: that its tensors held). --whole then computes the image at
once too, and tells the largest difference of any value in [0, 1] and the time.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import torch

from basicsr.archs import build_network
from basicsr.inference.restorer import PRECISIONS, Restorer, RestorerSettings
from basicsr.utils.cli import command, gibibytes
from basicsr.utils.devices import peak_memory_gib, select_device
from basicsr.utils.provenance import provenance


def measure(
    network: str,
    size: tuple[int, int],
    memory: float,
    features: Any = "memory",
    precision: str = "fp32",
    device: str = "auto",
    whole: bool = False,
) -> dict[str, Any]:
    """Of an image of `size` (width, height), in at most `memory` GiB."""
    chosen = select_device(device)
    torch.manual_seed(0)
    net = build_network({"type": network})
    width, height = size
    image = np.random.default_rng(0).integers(256, size=(height, width, 3), dtype=np.uint8)
    settings = RestorerSettings(precision=precision, memory_gib=memory, features=features)
    restorer = Restorer(net, chosen, settings)
    restorer(image[:64, :64])  # what libraries do at their first calls takes time too
    restored, seconds = timed(restorer, image)
    figures = {"seconds": seconds, "peak_gib": peak_memory_gib(chosen)}
    if whole:
        restorer.settings = RestorerSettings(precision=precision)
        restorer.supports_strips = False
        expected, seconds = timed(restorer, image)
        difference = float(np.abs(restored - expected).max())
        figures |= {"whole_seconds": seconds, "difference": difference}
    return {
        **{"network": network, "size": list(size), "memory": memory, "features": features},
        **{"precision": precision, **figures, "provenance": provenance(chosen)},
    }


def timed(restorer: Restorer, image: np.ndarray) -> tuple[np.ndarray, float]:
    start = time.perf_counter()
    return restorer(image), time.perf_counter() - start


def pixels(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least 1 pixel is needed")
    return number


@command
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--network", default="DTPNet", metavar="NAME", help="default: %(default)s")
    add("--size", nargs=2, type=pixels, required=True, metavar=("WIDTH", "HEIGHT"))
    add("--memory", type=gibibytes, required=True, metavar="GIB", help="the limit")
    add("--features", choices=["memory", "bf16", "disk"], default="memory")
    add("--precision", choices=PRECISIONS, default="fp32")
    add("--device", choices=["auto", "cuda", "cpu"], default="auto")
    add("--whole", action="store_true", help="compute it at once too, and compare")
    print(json.dumps(measure(**vars(parser.parse_args(arguments))), indent=2))


if __name__ == "__main__":
    main()
