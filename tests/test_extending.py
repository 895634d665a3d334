"""The recipes of CONTRIBUTING.md work as they are written, without touching any other file."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
COPIED = ("basicsr", "scripts", "options", "tests", "pyproject.toml")
FILE = re.compile(r"^`(\S+)`:\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


def recipe(title: str) -> str:
    """Return the text of a recipe in CONTRIBUTING.md."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    return page.partition(f"\n### {title}\n")[2].partition("\n### ")[0]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the project, with pairs of images in datasets/Toy."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    rng = np.random.default_rng(0)
    for folder in ("blurry", "sharp"):
        (tmp_path / "datasets" / "Toy" / folder).mkdir(parents=True)
    for number in range(4):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        sharp = coarse.resize((64, 48), Image.Resampling.NEAREST)
        sharp.save(tmp_path / f"datasets/Toy/sharp/{number}.png")
        blurry = coarse.resize((64, 48), Image.Resampling.BILINEAR)
        blurry.save(tmp_path / f"datasets/Toy/blurry/{number}.png")
    return tmp_path


def follow(title: str, project: Path) -> str:
    """Write the files of a recipe, run its commands, and return what they print."""
    text = recipe(title)
    for name, content in FILE.findall(text):
        file = project / name
        assert not file.exists(), f"{name} is part of the project already"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    (commands,) = COMMANDS.findall(text)
    return run(project, "bash", "-ec", commands)


def run(project: Path, *command: str) -> str:
    """Run a command in the copy of the project, and return what it prints."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(project),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_network(project: Path):
    printed = follow("A network", project)
    assert re.search(r"^\d+ passed", printed, re.MULTILINE)
    weights = 3 * 9 * 8 + 8 + 8 * 9 * 3 + 3
    assert f"{weights} parameters" in printed


def test_loss(project: Path):
    """The error grows by 1 per row: differences of 2 over two rows, 0 over two columns."""
    follow("A loss", project)
    value = run(
        project,
        *("python", "-c"),
        "import torch\n"
        "from basicsr.losses import build_losses\n"
        "loss = build_losses([{'type': 'GradientLoss', 'step': 2, 'weight': 0.5}])\n"
        "image = torch.arange(6.0).reshape(1, 1, 6, 1).expand(1, 3, 6, 5)\n"
        "print(loss([image], torch.zeros_like(image))[0].item())",
    )
    assert float(value) == 0.5 * 2


def test_metric_and_protocol(project: Path):
    printed = follow("A metric or protocol", project)
    pairs = [
        [
            np.asarray(Image.open(project / f"datasets/Toy/{folder}/{number}.png"), float)
            for folder in ("blurry", "sharp")
        ]
        for number in range(4)
    ]
    error = np.mean([np.abs(blurry - sharp)[4:-4, 4:-4].max() / 255 for blurry, sharp in pairs])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines()]
    columns = dict(zip(rows[0], rows[2], strict=True))
    assert (columns["images"], columns["protocol"]) == ("4", "cropped_rgb")
    assert float(columns["LARGEST-ERROR"]) == pytest.approx(error, abs=1e-6)


def test_data_set_and_layout(project: Path):
    printed = follow("A data set or layout", project)
    assert "pairs           4, 4 readable" in printed
    assert "faults          none" in printed
    assert "toy: the options are valid; 4 training images" in printed


def test_task(project: Path):
    printed = follow("A task", project)
    metrics = (project / "experiments/DTPNet-T_Toy/metrics.jsonl").read_text().splitlines()
    assert json.loads(metrics[-1])["iteration"] == 2
    assert len(list((project / "results/DTPNet-T_Toy/Toy/restored").iterdir())) == 4
    (result,) = json.loads((project / "results/DTPNet-T_Toy/scores.json").read_text())["results"]
    assert (result["dataset"], result["protocol"], result["images"]) == ("Toy", "rgb", 4)
    table = printed[printed.index("## Protocol `rgb`") :]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    cells = {row[0]: row[1:3] for row in rows if len(row) > 2}
    assert cells["ToyNet"] == ["**27.50**", "**0.912**"]
    psnr, ssim = f"<u>{result['psnr']:.2f}</u>", f"<u>{result['ssim']:.4f}</u>"
    assert cells["DTPNet-T_Toy †"] == [psnr, ssim]
