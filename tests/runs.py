"""Training and testing as their users start them, in a folder with photographs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # see Deraining/LONG_RUNS.md on restarts
}
NETWORK = {
    "type": "DTPNet",
    "dim": 8,
    "num_blocks": [1, 1, 1, 1],
    "num_refinement_blocks": 1,
    "heads": [1, 1, 2, 2],
    "recurrent_iter": 2,
    "recurrent_channels": 8,
}
ITERATIONS = 12


def command(script, *arguments, ranks=None, torchrun=()):
    """The command line that runs `basicsr/SCRIPT`, under torchrun where `ranks` are given."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    start = [sys.executable, *(launcher + list(torchrun) if ranks else [])]
    return [*start, str(ROOT / "basicsr" / script), *arguments]


def run(script, *arguments, cwd, ranks=None):
    """Run it to its end."""
    return subprocess.run(
        command(script, *arguments, ranks=ranks),
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )


def start(script, *arguments, cwd, ranks=None, torchrun=()):
    """Start it in a process group of its own; its output goes to `cwd/started.log`."""
    log = (cwd / "started.log").open("w")
    return subprocess.Popen(
        command(script, *arguments, ranks=ranks, torchrun=torchrun),
        cwd=cwd,
        env=ENVIRONMENT,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def timeless_metrics(folder):
    """The lines of metrics.jsonl without what is measured in seconds."""
    return [
        {key: value for key, value in json.loads(line).items() if not key.startswith("time/")}
        for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
