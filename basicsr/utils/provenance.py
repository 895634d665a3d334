"""Provenance of results: versions, device, date and git revision."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import basicsr

if TYPE_CHECKING:
    import torch  # imported by the functions below, as it is slow to load


def provenance(device: torch.device) -> dict[str, Any]:
    """Return the versions, device and time of a measurement made now."""
    import cv2
    import torch

    return {
        "library": f"dtpnet-derain {basicsr.__version__}",
        "git_revision": git_revision(),
        "torch": torch.__version__,
        "opencv": cv2.__version__,  # aligns images for some protocols
        "python": platform.python_version(),
        "device": device_name(device),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def record_environment(file: Path, device: torch.device) -> None:
    """Append a JSON line with the command, machine and packages of a run to `file`."""
    packages = {each.name: each.version for each in importlib.metadata.distributions()}
    record = {
        **provenance(device),
        "command": sys.argv,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "platform": platform.platform(),
        "packages": dict(sorted(packages.items(), key=lambda each: each[0].lower())),
    }
    with file.open("a") as lines:
        lines.write(json.dumps(record) + "\n")


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or of the processor with the number of threads in use."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {torch.get_num_threads()} threads"


def git_revision() -> str | None:
    """Return the git revision, with "-dirty" if tracked files differ; None outside a checkout."""
    folder = Path(basicsr.__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text().splitlines()
    except OSError:
        return []
