"""Run the steps of the Dockerfile without Docker, in a folder.

    python scripts/dockerfile_steps.py --root DIR

makes a virtual environment and the image's files in DIR, runs the RUN steps there, and starts the
page as the container would. Steps that change the system (packages of Debian, users) are simulated:
`apt-get` only looks whether its packages exist.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from basicsr.utils.cli import command, script_parser
from basicsr.utils.errors import DataError

ROOT = Path(__file__).resolve().parents[1]
SIMULATED = {
    "apt-get": 'test "$1" = update || exec /usr/bin/apt-get --simulate "$@" > /dev/null',
    "rm": ":",
    "useradd": ":",
}
"""Commands that would change the system, and what is run in their place."""


class Instruction(NamedTuple):
    """Instruction of a Dockerfile: RUN, COPY, ... and the text after it."""

    name: str
    text: str


@command
def main(arguments: list[str] | None = None) -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder in place of the image's")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    python = root / "venv" / "bin"
    subprocess.run([sys.executable, "-m", "venv", python.parent], check=True)
    steps = list(instructions((ROOT / "Dockerfile").read_text()))
    build(steps, root, python)
    start_page(steps, root, python)


def instructions(text: str) -> Iterator[Instruction]:
    """Yield the instructions of a Dockerfile, without comments, each in one line."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, rest = line.partition(" ")
            yield Instruction(name, rest.strip())


def build(steps: list[Instruction], root: Path, python: Path) -> None:
    """Run ARG, WORKDIR, COPY and RUN in `root`, with the programs of the folder `python` first.

    Raises DataError for a step that fails.
    """
    simulated = root / "simulated"
    simulated.mkdir(parents=True, exist_ok=True)
    for name, script in SIMULATED.items():
        (simulated / name).write_text(f"#!/bin/sh\n{script}\n")
        (simulated / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{simulated}:{python}:{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)  # the checkout's
    folder = root
    for step in steps:
        match step.name:
            case "ARG":
                name, _, default = step.text.partition("=")
                environment.setdefault(name, default.strip('"'))
            case "WORKDIR":
                folder = root / step.text.lstrip("/")
                folder.mkdir(parents=True, exist_ok=True)
            case "COPY":
                _copy(step.text.split()[0], folder)
            case "RUN":
                print(f"RUN {step.text}", flush=True)
                done = subprocess.run(["sh", "-c", step.text], cwd=folder, env=environment)
                if done.returncode:
                    raise DataError(f"Dockerfile: RUN {step.text}: exit code {done.returncode}")


def _copy(source: str, folder: Path) -> None:
    ignored = shutil.ignore_patterns(*(ROOT / ".dockerignore").read_text().split())
    if (ROOT / source).is_dir():
        shutil.copytree(ROOT / source, folder, ignore=ignored, dirs_exist_ok=True)
    else:
        shutil.copy(ROOT / source, folder)


def start_page(steps: list[Instruction], root: Path, python: Path) -> None:
    """Start the command of the image on any free port, until it serves the page.

    Raises DataError if it does not.
    """
    words: list[str] = []
    for step in steps:
        if step.name == "CMD":
            words = re.findall(r'"([^"]*)"', step.text)
    environment: Mapping[str, str] = {**os.environ, "PATH": f"{python}:{os.environ['PATH']}"}
    with subprocess.Popen(
        [*words, "--port", "0"], cwd=root, env=environment, stdout=subprocess.PIPE, text=True
    ) as page:
        assert page.stdout is not None
        line = page.stdout.readline()
        page.terminate()
    if "the page is at" not in line or page.returncode:
        raise DataError(f"Dockerfile: CMD {' '.join(words)}: does not serve the page")
    print(f"{' '.join(words)}: {line.strip()}")


if __name__ == "__main__":
    main()
