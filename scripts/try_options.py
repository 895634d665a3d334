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

from basicsr.metrics import DEFAULT_PROTOCOL, get_protocol
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
    metrics = get_protocol(protocol).metrics
    heads = ["try", "iterations", *(f"{m.label} ({protocol})" for m in metrics), "images/s"]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for name, folder in runs.items():
        log = folder / "metrics.jsonl"
        curves = read_curves(log) if log.is_file() else {}
        scores = [curves.get(f"val/{protocol}_{metric.name}") for metric in metrics]
        cells = [name, *[""] * (len(heads) - 1)]
        if scores[0] is not None:
            cells[1] = str(scores[0].iterations[-1])
            cells[-1] = f"{statistics.median(curves[SPEED].values):.1f}"
        for column, (metric, score) in enumerate(zip(metrics, scores, strict=True), start=2):
            if score is not None:
                cells[column] = f"{score.values[-1]:.{metric.decimals}f}"
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="YAML file of tries")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run only these tries")
    parser.add_argument(
        "--protocol", default=DEFAULT_PROTOCOL, metavar="NAME", help="default: %(default)s"
    )
    parser.add_argument("--table", action="store_true", help="print the table without training")
    return parser


if __name__ == "__main__":
    main()
