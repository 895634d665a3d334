"""Train one option file several times, each with some options changed, and compare the results.

    python scripts/try_options.py scripts/tries/systems.yml --record Deraining/runs/systems

Keys of the file:

- base: an option file for training
- common: assignments in the format of --force_yml for all tries
- tries: a list of further assignments for each name
- test: an option file for a test of every trained network (optional)
- threads: threads of every training (optional)

A try trains in experiments/<file>-<name>, and its test is in the folder `test` there. The same
command resumes a try that was stopped. The table has the scores of the last validation and of the
test, and the cost of an image of 256 x 256 pixels.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from plot_runs import read_curves
from pydantic import ValidationError

from basicsr.archs import build_network
from basicsr.metrics import DEFAULT_PROTOCOL, get_protocol
from basicsr.models.cost import network_cost
from basicsr.options.yaml_files import read_yaml
from basicsr.utils.cli import add_output_dir, command, positive, script_parser
from basicsr.utils.components import Strict
from basicsr.utils.errors import OptionsError, Stopped, UserError
from basicsr.utils.files import atomic_write, sha256
from basicsr.utils.registry import suggest

LIBRARY = Path(__file__).resolve().parent.parent / "basicsr"
STOPPED = 75  # exit code of a run that saved everything and can go on
SIDE = 256
FACTS = ("device", "git_revision", "torch", "date")
"""Provenance of a training that is recorded."""


class Tries(Strict):
    """Content of a file of tries."""

    base: str
    common: list[str]
    tries: dict[str, list[str]]
    test: str | None = None
    threads: int | None = None


@dataclass
class Result:
    """Result of a try.

    Attributes:
        network: options of the network.
        parameters: number of its weights.
        macs: multiply-accumulates for an image of 256 x 256 pixels.
        iterations: number of optimization steps.
        patches: number of training patches seen.
        time_limit: of the training in seconds, if there is one.
        time_limit_clock: "wall" or "cpu".
        scores: means by data set and metric.
        training: device, versions and date of the training.
    """

    network: dict[str, Any]
    parameters: int
    macs: int
    iterations: int
    patches: int
    time_limit: float | None
    time_limit_clock: str
    scores: dict[str, dict[str, float]]
    training: dict[str, Any]


@command
def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    plan = read_tries(options.file)
    names = options.only or list(plan.tries)
    for name in names:
        if name not in plan.tries:
            raise OptionsError(
                f"{options.file}: no try is called '{name}'{suggest(name, plan.tries)}; "
                f"known: {', '.join(plan.tries)}"
            )
    folders = {name: options.output_dir / f"{options.file.stem}-{name}" for name in names}
    if not options.table:
        for name, folder in folders.items():
            train(plan, name, folder, options.seconds)
            if plan.test is not None:
                test(plan, folder)
    results = {name: read_result(folder, options.protocol) for name, folder in folders.items()}
    text = table(results, options.protocol)
    print(text)
    if options.record is not None:
        command_line = shlex.join(["scripts/try_options.py", *arguments])
        document = {
            "command": command_line,
            "protocol": options.protocol,
            **plan.model_dump(exclude={"tries"}),
            "tries": {
                name: {"assignments": plan.tries[name], **asdict(result)}
                for name, result in results.items()
                if result is not None
            },
        }
        record(options.record, text, document, folders)


def read_tries(file: Path) -> Tries:
    """Read a file of tries; raise OptionsError if it is malformed."""
    try:
        return Tries.model_validate(read_yaml(file))
    except ValidationError as error:
        fault = error.errors()[0]
        raise OptionsError(
            f"{file}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}; a file of tries has "
            "base, common and tries, whose assignments are strings, and may have test and threads"
        ) from None


def train(plan: Tries, name: str, folder: Path, seconds: int | None = None) -> None:
    """Train a try to its end, in a new process.

    Args:
        plan: content of the file of tries.
        name: name of the try.
        folder: folder of the run.
        seconds: time limit, instead of the option file's.
    """
    assignments = [*plan.common, *plan.tries[name], f"name={folder.name}"]
    if seconds is not None:
        assignments.append(f"train:time_limit={seconds}")
    arguments = ["-opt", plan.base, "--auto_resume", "--output-dir", str(folder.parent)]
    _run("train.py", [*arguments, "--force_yml", *assignments], plan.threads)


def test(plan: Tries, folder: Path) -> None:
    """Test the last weights of a run, unless they have been tested before."""
    assert plan.test is not None
    weights = folder / "models" / "net_g_latest.safetensors"
    scores = folder / "test" / "scores.json"
    if scores.exists():
        tested = json.loads(scores.read_text())["provenance"]
        if (tested["weights_sha256"], tested["option_file"]) == (sha256(weights), plan.test):
            return
    arguments = ["-opt", plan.test, "--output-dir", str(folder)]
    changes = ["name=test", f"path:pretrain_network_g={weights}"]
    _run("test.py", [*arguments, "--force_yml", *changes], plan.threads)


def _run(script: str, arguments: Sequence[str], threads: int | None) -> None:
    """Run a script of the library; raise Stopped or UserError if it does not finish."""
    line = [sys.executable, str(LIBRARY / script), *arguments]
    print(f"$ {' '.join(line[1:])}", flush=True)
    environment = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(line, env={**os.environ, **environment})

    def forward(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)  # a training saves its state and ends

    numbers = (signal.SIGTERM, signal.SIGINT)
    previous = {number: signal.signal(number, forward) for number in numbers}
    try:
        code = process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if code == STOPPED:
        raise Stopped("a signal")
    if code:
        raise UserError(f"{script} above did not finish; fix its error and run this again")


def read_result(folder: Path, protocol: str) -> Result | None:
    """Return the result of the run in `folder`; None if it has not begun."""
    log = folder / "metrics.jsonl"
    if not log.is_file():
        return None
    curves = read_curves(log)
    options = read_yaml(folder / "options.yml")
    network = build_network(options["network_g"])
    side = network.fitting_side(SIDE)
    cost = network_cost(network, (1, network.in_channels, side, side))
    iterations = max(curve.iterations[-1] for curve in curves.values())
    environment = json.loads((folder / "environment.jsonl").read_text().splitlines()[-1])
    return Result(
        network=options["network_g"],
        parameters=cost.parameters,
        macs=cost.macs,
        iterations=iterations,
        patches=patches_seen(options["datasets"]["train"]["patches"], iterations),
        # runs of earlier versions have neither
        time_limit=options["train"].get("time_limit"),
        time_limit_clock=options["train"].get("time_limit_clock", "wall"),
        scores=read_scores(folder, curves, options, protocol),
        training={fact: environment[fact] for fact in FACTS},
    )


def patches_seen(stages: Sequence[Mapping[str, int]], iterations: int) -> int:
    """Return the number of patches in the first `iterations` of a schedule of patches."""
    seen = 0
    for stage in stages:
        steps = min(iterations, stage["iters"])
        seen += steps * stage["batch_size"]
        iterations -= steps
    return seen


def read_scores(
    folder: Path, curves: Mapping[str, Any], options: Mapping[str, Any], protocol: str
) -> dict[str, dict[str, float]]:
    """Return the scores of the last validation and of the test, by data set and metric."""
    scores = {}
    names = [metric.name for metric in get_protocol(protocol).metrics]
    for key, dataset in options["datasets"].items():
        logged = {name: curves.get(f"{key}/{protocol}_{name}") for name in names}
        if all(logged.values()):
            scores[dataset["name"]] = {name: curve.values[-1] for name, curve in logged.items()}
    tested = folder / "test" / "scores.json"
    if tested.exists():
        for result in json.loads(tested.read_text())["results"]:
            if result["protocol"] == protocol:
                scores[result["dataset"]] = {name: float(result[name]) for name in names}
    return scores


def table(results: Mapping[str, Result | None], protocol: str) -> str:
    """Return a Markdown table of the results, with empty cells where there is none yet."""
    metrics = get_protocol(protocol).metrics
    present = [result for result in results.values() if result is not None]
    datasets = list(dict.fromkeys(name for result in present for name in result.scores))
    scored = [f"{m.label} ({protocol}, {dataset})" for dataset in datasets for m in metrics]
    heads = ["try", "parameters", "GMACs", "iterations", "patches", *scored]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for name, result in results.items():
        cells = [name, *[""] * (len(heads) - 1)]
        if result is not None:
            scores = [
                f"{result.scores[dataset][metric.name]:.{metric.decimals}f}"
                if dataset in result.scores
                else ""
                for dataset in datasets
                for metric in metrics
            ]
            cells = [
                name,
                f"{result.parameters:,}",
                f"{result.macs / 1e9:.2f}",
                str(result.iterations),
                f"{result.patches:,}",
                *scores,
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def record(out: Path, text: str, document: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
    """Write the table, its figures with their provenance, and the logs of the tries to `out`.

    Args:
        out: folder, which is created.
        text: the table.
        document: its figures and how they were measured.
        folders: folder of the run of each try.
    """
    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(out / "table.md") as file:
        file.write(f"{text}\n".encode())
    with atomic_write(out / "table.json") as file:
        file.write(f"{json.dumps(document, indent=1)}\n".encode())
    for name in document["tries"]:
        (out / name).mkdir(exist_ok=True)
        shutil.copy(folders[name] / "metrics.jsonl", out / name)


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="YAML file of tries")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run only these tries")
    parser.add_argument(
        "--protocol", default=DEFAULT_PROTOCOL, metavar="NAME", help="default: %(default)s"
    )
    parser.add_argument("--table", action="store_true", help="print the table without training")
    parser.add_argument(
        "--seconds", type=positive, metavar="N", help="time limit of every training"
    )
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FOLDER",
        help="also write the table, its figures as JSON and the logs of all tries there",
    )
    add_output_dir(parser, "experiments")
    return parser


if __name__ == "__main__":
    main()
