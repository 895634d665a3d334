"""Time how fast the commands answer: --help of each, and restoring a small photograph.

    python scripts/benchmarks/commands.py --runs 5

Each command runs in a new process. The time is the shortest of --runs, so that other processes on
the machine count as little as possible. The photograph has 160 x 120 random pixels, and is restored
with the default weights.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

if not __package__:  # run as a file: import modules and library from the folders above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

import basicsr
from basicsr.io.images import write_png
from basicsr.utils.cli import command, positive, script_parser

COMMANDS = ("restore", "train", "test", "measure", "app")


def shortest(arguments: list[str], runs: int) -> float:
    """Return the seconds of the fastest of `runs` calls of `python -m basicsr.ARGUMENTS`."""
    root = str(Path(basicsr.__file__).parents[1])
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", *arguments],
            env={**os.environ, "PYTHONPATH": root},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure(runs: int) -> dict[str, float]:
    """Return the seconds by command line."""
    figures = {
        f"{name} --help": shortest([f"{basicsr.__name__}.{name}", "--help"], runs)
        for name in COMMANDS
    }
    with tempfile.TemporaryDirectory() as folder:
        photograph = Path(folder) / "photograph.png"
        pixels = np.random.default_rng(0).integers(256, size=(120, 160, 3), dtype=np.uint8)
        write_png(photograph, pixels)
        times = []
        for run in range(runs):
            out = str(Path(folder) / str(run))
            arguments = [f"{basicsr.__name__}.restore", str(photograph), "-o", out]
            times.append(shortest(arguments, 1))
        figures["restore photograph.png"] = min(times)
    return figures


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    print("| command | seconds |", "| --- | --- |", sep="\n")
    for name, seconds in measure(options.runs).items():
        print(f"| `{name}` | {seconds:.2f} |")


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    parser.add_argument("--runs", type=positive, default=5, metavar="N", help="default: 5")
    return parser


if __name__ == "__main__":
    main()
