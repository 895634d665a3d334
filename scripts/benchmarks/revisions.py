"""Compare the speed of training in several checkouts of this project.

    git worktree add ../before REVISION
    OMP_NUM_THREADS=1 python scripts/benchmarks/revisions.py ../before . -opt FILE --repeats 4

The checkouts take turns. Each trains with the same option file, 50 iterations with every kind of
patches, and the last 30 are timed. The table shows the shortest and the median seconds of an
iteration, and how much faster they are than those of the first checkout. Close other programs, and
repeat more often on a machine whose speed varies.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median

if not __package__:  # run as a file: import modules and library from the folders above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from basicsr.data import SampleStage
from basicsr.options import TrainOptions, load_options
from basicsr.utils.cli import command, positive, script_parser
from basicsr.utils.errors import UserError

Seconds = dict[str, list[float]]
"""Seconds of an iteration in each run, by the patches of the iteration."""

PRINTED, UNTIMED, TIMED = 10, 2, 3
"""Iterations between two printed speeds, and the numbers of speeds that are left out and kept."""

SPEED = re.compile(r"iteration \d+/.* ([\d.]+) images/s")


def trained(checkout: Path, option_file: Path, stage: SampleStage, total: int) -> float:
    """Return the seconds of an iteration with the patches of a stage.

    Raises:
        UserError: `checkout` is no checkout, or cannot train with the option file.
    """
    script = checkout / "basicsr" / "train.py"
    if not script.is_file():
        raise UserError(f"{checkout}: no checkout of this project (there is no basicsr/train.py)")
    patches = f"{{size: {stage.size}, batch_size: {stage.batch_size}, iters: {total}}}"
    changes = (f"datasets:train:patches=[{patches}]", f"logger:print_freq={PRINTED}")
    speeds: list[float] = []
    reason = "no output"
    with tempfile.TemporaryDirectory() as folder:
        command_line = [sys.executable, script, "-opt", option_file, "--output-dir", folder]
        with subprocess.Popen(
            [*command_line, "--force_yml", *changes],
            env={**os.environ, "PYTHONPATH": str(checkout.resolve())},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as run:
            for line in run.stdout or ():
                reason = line.strip().removeprefix("error: ") or reason
                if found := SPEED.search(line):
                    speeds.append(float(found[1]))
                    if len(speeds) == UNTIMED + TIMED:
                        run.send_signal(signal.SIGINT)  # once: a second one interrupts its saving
    if len(speeds) < UNTIMED + TIMED:
        raise UserError(f"{checkout}: train.py: {reason}")
    return mean(stage.batch_size / speed for speed in speeds[UNTIMED : UNTIMED + TIMED])


def measure(checkouts: Sequence[Path], option_file: Path, repeats: int) -> list[Seconds]:
    """Return the seconds of each checkout. Raises UserError if the training is too short."""
    options = load_options(TrainOptions, option_file)
    iterations = PRINTED * (UNTIMED + TIMED)
    if options.train.total_iter < iterations:
        raise UserError(f"{option_file}: train.total_iter must be at least {iterations}")
    stages = {
        f"{stage.batch_size} of {stage.size} x {stage.size}": stage
        for stage in options.datasets.train.patches
    }
    measured: list[Seconds] = [{} for _ in checkouts]
    for _ in range(repeats):
        for seconds, checkout in zip(measured, checkouts, strict=True):
            for patches, stage in stages.items():
                value = trained(checkout, option_file, stage, options.train.total_iter)
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
    parser.add_argument("--repeats", type=positive, default=4, metavar="N", help="default: 4")
    return parser


if __name__ == "__main__":
    main()
