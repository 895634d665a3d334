"""Compare the speed of training in several checkouts of this project.

    git worktree add ../before REVISION
    OMP_NUM_THREADS=1 python scripts/benchmarks/revisions.py ../before . -opt FILE --repeats 12

In turns, each checkout runs `train.py --check` with the same option file, in a process of its own.
For every kind of patches, the seconds of an iteration are printed: the shortest and the median, and
the speed relative to the first checkout by both. Close other programs, and repeat more often on a
machine whose speed varies.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

if not __package__:  # run as a file: import modules and library from the folders above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from basicsr.utils.cli import command, positive, script_parser
from basicsr.utils.errors import UserError

Seconds = dict[str, list[float]]
"""Seconds of an iteration in each run, by the patches of the iteration."""

STAGE = re.compile(r"patches of (\d+), (\d+) a step: .* ([\d.e+-]+) s an iteration")


def checked(checkout: Path, option_file: Path) -> dict[str, float]:
    """Return the seconds of an iteration by patches, such as "8 of 64 x 64".

    Raises:
        UserError: `checkout` is no checkout, or cannot train with the option file.
    """
    script = checkout / "basicsr" / "train.py"
    if not script.is_file():
        raise UserError(f"{checkout}: no checkout of this project (there is no basicsr/train.py)")
    run = subprocess.run(
        [sys.executable, script, "-opt", option_file.resolve(), "--check"],
        env={**os.environ, "PYTHONPATH": str(checkout.resolve())},
        capture_output=True,
        text=True,
        check=False,
    )
    stages = STAGE.findall(run.stdout)
    if run.returncode or not stages:
        *_, reason = ["no output", *(run.stderr or run.stdout).strip().splitlines()]
        raise UserError(f"{checkout}: train.py --check: {reason.removeprefix('error: ')}")
    return {f"{share} of {size} x {size}": float(seconds) for size, share, seconds in stages}


def measure(checkouts: Sequence[Path], option_file: Path, repeats: int) -> list[Seconds]:
    """Return the seconds of each checkout."""
    measured: list[Seconds] = [{} for _ in checkouts]
    for _ in range(repeats):
        for seconds, checkout in zip(measured, checkouts, strict=True):
            for patches, value in checked(checkout, option_file).items():
                seconds.setdefault(patches, []).append(value)
    return measured


def table(checkouts: Sequence[Path], measured: Sequence[Seconds]) -> list[str]:
    lines = [
        "| patches of a step | checkout | shortest (s) | median (s) | faster, by both |",
        "| --- | --- | --- | --- | --- |",
    ]
    for patches, first in measured[0].items():
        for checkout, each in zip(checkouts, measured, strict=True):
            runs = each[patches]
            faster = f"{min(first) / min(runs):.2f}, {median(first) / median(runs):.2f}"
            lines.append(
                f"| {patches} | {checkout} | {min(runs):.3g} | {median(runs):.3g} | {faster} |"
            )
    return lines


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    measured = measure(options.checkouts, options.opt, options.repeats)
    print("\n".join(table(options.checkouts, measured)))


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    parser.add_argument("checkouts", nargs="+", type=Path, metavar="CHECKOUT")
    parser.add_argument("-opt", required=True, type=Path, help="option file of a training")
    parser.add_argument("--repeats", type=positive, default=12, metavar="N", help="default: 12")
    return parser


if __name__ == "__main__":
    main()
