"""Test, measure and train on a GPU; each stage is recorded, and done once.

    python scripts/gpu.py                       # on the machine with the GPU; or: make gpu
    python scripts/gpu.py --stages training --seconds 540

Stages, in this order:

- tests: `pytest -m cuda`, which compares the GPU's results with the CPU's
- benchmark: scripts/benchmark.py, with and without our Triton kernels and CUDA graphs
- training: basicsr/train.py with --opt, stopped after --seconds with everything saved; every call
  goes on where the last one stopped, until the run is finished

Results go to gpu_STAGE.json in --out, with the GPU and versions. A stage with a result is not
repeated; delete the file to do so. The exit code is 1 if a stage failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

from basicsr.utils.cli import command, positive, script_parser
from basicsr.utils.devices import select_device
from basicsr.utils.files import atomic_write
from basicsr.utils.provenance import provenance

ROOT = Path(__file__).resolve().parent.parent
RECIPE = "options/train/Deraining/DTPNet-T_RainTrainL_gpu.yml"
STOPPED = 75  # exit code of a run that saved everything and can go on

Result = dict[str, Any]


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    device = select_device(options.device)
    complete = True
    for stage in options.stages:
        complete &= run_stage(stage, STAGES[stage], options, device)
    sys.exit(not complete)


def run_stage(
    stage: str,
    measure: Callable[[argparse.Namespace], Result],
    options: argparse.Namespace,
    device: torch.device,
) -> bool:
    """Run a stage that has no complete result yet, and record it; return whether it succeeded."""
    file = options.out / f"gpu_{stage}.json"
    if file.exists() and json.loads(file.read_text())["complete"]:
        print(f"{stage}: done before, see {file}", flush=True)
        return True
    start = time.monotonic()
    result = measure(options)
    record = {
        "provenance": provenance(device),
        "seconds": round(time.monotonic() - start, 1),
        **result,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as out:
        out.write(json.dumps(record, indent=2).encode() + b"\n")
    print(f"{stage}: {'succeeded' if result['succeeded'] else 'FAILED'}, see {file}", flush=True)
    return result["succeeded"]


def tests(options: argparse.Namespace) -> Result:
    """Run the tests marked `cuda`."""
    report = options.work / "tests.xml"
    code = _python("-m", "pytest", "-m", "cuda", f"--junitxml={report}", "-n", str(options.workers))
    cases = ElementTree.parse(report).iter("testcase") if report.exists() else []
    outcomes = {f"{each.get('classname')}.{each.get('name')}": _outcome(each) for each in cases}
    passed = sum(outcome == "passed" for outcome in outcomes.values())
    others = {name: outcome for name, outcome in outcomes.items() if outcome != "passed"}
    return {"complete": code == 0, "succeeded": code == 0, "passed": passed, "others": others}


def benchmark(options: argparse.Namespace) -> Result:
    """Measure inference and training steps of the networks."""
    folder = options.work / "benchmark"
    code = _python(
        "scripts/benchmark.py",
        *("--device", options.device, "--subjects", "inference", "training", "--out", str(folder)),
        *("--networks", *options.networks, "--sizes", *map(str, options.sizes)),
    )
    file = folder / "benchmark.json"
    rows = json.loads(file.read_text())["networks"] if file.exists() else []
    return {"complete": code == 0, "succeeded": code == 0, "networks": rows}


def training(options: argparse.Namespace) -> Result:
    """Train for a while; the run's own folder has its log and states."""
    command = ("basicsr/train.py", "-opt", options.opt, "--auto_resume")
    code = run_for(options.seconds, *command)
    return {
        "complete": code == 0,
        "succeeded": code in (0, STOPPED),
        "exit_code": code,
        "option_file": options.opt,
    }


def run_for(seconds: float, *arguments: str) -> int:
    """Run a Python command, ask it to stop after `seconds`, and return its exit code."""
    print(f"\n$ python {' '.join(arguments)}", flush=True)
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        return process.wait()


STAGES: dict[str, Callable[[argparse.Namespace], Result]] = {
    "tests": tests,
    "benchmark": benchmark,
    "training": training,
}


def _outcome(case: ElementTree.Element) -> str:
    for child in case:
        if child.tag in ("failure", "error", "skipped"):
            return f"{child.tag}: {child.get('message')}"
    return "passed"


def _python(*arguments: str) -> int:
    """Run a command of this project from its root; return the exit code."""
    print(f"\n$ python {' '.join(arguments)}", flush=True)
    return subprocess.run([sys.executable, *arguments], cwd=ROOT).returncode


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    add = parser.add_argument
    add("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    add("--workers", type=positive, default=4, help="processes for the tests (default: 4)")
    add("--networks", nargs="+", default=["DTPNet-T", "DTPNet", "Restormer"], metavar="NAME")
    add("--sizes", nargs="+", type=positive, default=[256, 512, 1024], metavar="SIDE")
    add("--opt", default=RECIPE, metavar="FILE", help="recipe to train (default: %(default)s)")
    add("--seconds", type=positive, default=540, help="of training (default: %(default)s)")
    add("--out", type=Path, default=ROOT / "Deraining" / "runs", metavar="FOLDER")
    add("--work", type=Path, default=ROOT / "results" / "gpu", metavar="FOLDER")
    add("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try this script")
    return parser


if __name__ == "__main__":
    main()
