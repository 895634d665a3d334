"""Mutate valid images, option files and checkpoints, and read them as the commands do.

    python scripts/fuzz.py --seconds 600 --seed 1

Every input must be read, or be refused with an error that names it, within the limits of time and
memory. Inputs that end in a stack trace, a hang, a crash, too much memory or an unclear message are
kept in the folder of -o, each with a text, and the exit code is 1. The inputs depend on the seed
alone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fuzzing.pool import FAULTS, OUTCOMES, Limits, Plan, run

from basicsr.utils.cli import add_workers, command, positive, script_parser

KINDS = sorted(
    file.stem
    for file in (Path(__file__).parent / "fuzzing").glob("*.py")
    if file.stem not in ("__init__", "base", "pool")
)


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    limits = Limits(options.limit_seconds, options.limit_gib)
    plan = Plan(options.kinds, options.seconds, options.inputs, options.seed)
    counts = run(plan, limits, options.out, options.workers)
    print(f"{'':12}" + "".join(f"{outcome:>9}" for outcome in OUTCOMES) + "      all")
    for kind, found in counts.items():
        numbers = [found[outcome] for outcome in OUTCOMES]
        print(f"{kind:12}" + "".join(f"{number:9,}" for number in (*numbers, sum(numbers))))
    if any(found[outcome] for found in counts.values() for outcome in FAULTS):
        print(f"inputs with faults are in {options.out}")
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, metavar="N", help="time in all")
    parser.add_argument(
        "--inputs", type=positive, default=10**9, metavar="N", help="most of a kind"
    )
    add_workers(parser, "processes for each kind", default=1)
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="(default: %(default)s)")
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=KINDS, metavar="KIND",
        help=f"(default: {' '.join(KINDS)})",
    )  # fmt: skip
    parser.add_argument(
        "--limit-seconds", type=float, default=20.0, metavar="N",
        help="CPU time of an input (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--limit-gib", type=float, default=2.0, metavar="GIB",
        help="memory of an input, beyond that of the idle process (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("fuzzed"), metavar="DIR",
        help="folder for the inputs with faults (default: %(default)s)",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    main()
