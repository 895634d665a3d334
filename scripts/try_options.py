"""Train one option file several times, each with some options changed, and compare the results.

    python scripts/try_options.py scripts/tries/DTPNet-T.yml

The file has three keys: `base`, an option file; `common`, assignments in the format of --force_yml
for all tries; `tries`, a list of further assignments for each name. A try trains in
experiments/<file>-<name>. The same command resumes a try that was stopped.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from plot_runs import read_curves
from pydantic import ValidationError

from basicsr.options.yaml_files import read_yaml
from basicsr.utils.cli import command, script_parser
from basicsr.utils.components import Strict
from basicsr.utils.errors import OptionsError, UserError
from basicsr.utils.registry import suggest

SPEED = "time/images_per_second"
TRAIN = Path(__file__).resolve().parent.parent / "basicsr" / "train.py"


class Tries(Strict):
    """Content of a file of tries."""

    base: str
    common: list[str]
    tries: dict[str, list[str]]


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    plan = read_tries(options.file)
    names = options.only or list(plan.tries)
    for name in names:
        if name not in plan.tries:
            raise OptionsError(
                f"{options.file}: no try is called '{name}'{suggest(name, plan.tries)}; "
                f"known: {', '.join(plan.tries)}"
            )
    runs = {name: f"{options.file.stem}-{name}" for name in names}
    if not options.table:
        for name, run in runs.items():
            train(plan.base, [*plan.common, *plan.tries[name], f"name={run}"])
    folders = {name: Path("experiments", run) for name, run in runs.items()}
    print(table(folders, options.protocol))


def read_tries(file: Path) -> Tries:
    """Read a file of tries; raise OptionsError if it is malformed."""
    try:
        return Tries.model_validate(read_yaml(file))
    except ValidationError as error:
        fault = error.errors()[0]
        raise OptionsError(
            f"{file}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}; a file of tries has "
            "base, common and tries, and their assignments are strings"
        ) from None


def train(base: str, assignments: list[str]) -> None:
    """Train to the end in a new process; raise UserError if it fails."""
    line = [sys.executable, str(TRAIN), "-opt", base, "--auto_resume", "--force_yml", *assignments]
    print(f"$ {' '.join(line[1:])}", flush=True)
    if subprocess.run(line).returncode:
        raise UserError("the training above did not finish; fix its error and run this again")


def table(runs: dict[str, Path], protocol: str) -> str:
    """Return a Markdown table of the last validation of each run."""
    heads = ["try", "iterations", f"PSNR ({protocol})", "SSIM", "images/s"]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for name, folder in runs.items():
        log = folder / "metrics.jsonl"
        curves = read_curves(log) if log.is_file() else {}
        psnr, ssim = (curves.get(f"val/{protocol}_{score}") for score in ("psnr", "ssim"))
        if psnr is None or ssim is None:
            lines.append(f"| {name} | | | | |")
            continue
        speed = statistics.median(curves[SPEED].values)
        lines.append(
            f"| {name} | {psnr.iterations[-1]} | {psnr.values[-1]:.2f} | "
            f"{ssim.values[-1]:.4f} | {speed:.1f} |"
        )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="YAML file of tries")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run only these tries")
    parser.add_argument("--protocol", default="matlab_y")
    parser.add_argument("--table", action="store_true", help="print the table without training")
    return parser


if __name__ == "__main__":
    main()
