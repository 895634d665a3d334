"""The installed package and the checkout beside another package called basicsr."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from basicsr.archs import build_network
from basicsr.io.checkpoints import save_weights
from basicsr.io.images import read_image, write_png

ROOT = Path(__file__).parents[1]
NETWORK = {"type": "PRN_r", "recurrent_iter": 1, "channels": 8}


def run(folder: Path, *arguments: object, path: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in `folder`, with `path` as the folder of installed packages."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    """Folder of installed packages that holds another package called basicsr."""
    folder = tmp_path_factory.mktemp("site-packages")
    for module in ("__init__", "train", "test", "archs/__init__", "utils/__init__"):
        file = folder / "basicsr" / f"{module}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text("OTHER = True\n")
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    copy = tmp_path_factory.mktemp("project")
    for name in ("basicsr", "pretrained_models"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "derain.py"):
        shutil.copy(ROOT / name, copy)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    done = run(copy, "-c", build, path=copy)
    assert done.returncode == 0, done.stderr
    assert "Deprecat" not in done.stderr
    return zipfile.ZipFile(next(copy.glob("*.whl")))


def test_the_installed_package_works_beside_another_basicsr(wheel, packages, tmp_path):
    names = [name for name in wheel.namelist() if name.endswith(".py")]
    assert len(names) == len(list((ROOT / "basicsr").rglob("*.py")))
    assert {name.partition("/")[0] for name in names} == {"derain"}
    shutil.copytree(packages, tmp_path / "packages")
    wheel.extractall(tmp_path / "packages")

    network = build_network(NETWORK)
    save_weights(tmp_path / "w.safetensors", network.state_dict(), NETWORK)
    image = np.random.default_rng(0).integers(256, size=(9, 11, 3), dtype=np.uint8)
    write_png(tmp_path / "a.png", image)
    program = """
import sys
import basicsr.train
from derain.restore import main
main(["a.png", "-o", "out", "--weights", "w.safetensors", "--device", "cpu"])
others = [name for name in sys.modules if name.partition(".")[0] == "basicsr"]
print(basicsr.OTHER, others)
"""
    done = run(tmp_path, "-c", program, path=tmp_path / "packages")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "True ['basicsr', 'basicsr.train']"
    from basicsr.restore import restore

    expected = restore(image, tmp_path / "w.safetensors", device="cpu")
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "a.png"), expected)


def test_the_commands_are_those_of_the_modules(wheel):
    entry_points = configparser.ConfigParser()
    name = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    entry_points.read_string(wheel.read(name).decode())
    commands = dict(entry_points["console_scripts"])
    assert commands.pop("derain") == "derain.restore:main"
    assert commands == {
        f"derain-{module}": f"derain.{module}:main"
        for module in ("train", "test", "measure", "app")
    }


def test_the_wheel_holds_weights_and_sources_of_kernels(wheel):
    names = set(wheel.namelist())
    weights = {file.name for file in (ROOT / "pretrained_models").glob("*.safetensors")}
    assert weights
    assert {f"derain/pretrained_models/{name}" for name in weights} <= names
    assert {f"derain/archs/ops/{name}" for name in ("dwconv.c", "vectors.h")} <= names


@pytest.mark.parametrize("file", ["basicsr/train.py", "basicsr/restore.py", "scripts/measure.py"])
def test_files_of_a_checkout_use_its_own_library(packages, tmp_path, file):
    done = run(tmp_path, ROOT / file, "--help", path=packages)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")


def test_the_alias_of_a_checkout(packages, tmp_path):
    program = f"""
import sys
sys.path.append({str(ROOT)!r})
import derain.utils.errors, derain.io.images as images
import basicsr.utils.errors
assert derain.utils.errors is basicsr.utils.errors
assert images.DataError is basicsr.utils.errors.DataError
assert images.__spec__.name == "basicsr.io.images", images.__spec__
"""
    done = run(tmp_path, "-c", program, path=packages)
    assert done.returncode == 0, done.stderr


def test_a_conflict_is_named_with_its_remedy(packages, tmp_path):
    program = f"import sys, basicsr; sys.path.append({str(ROOT)!r}); import derain"
    done = run(tmp_path, "-c", program, path=packages)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: {packages}/basicsr: this is another package called basicsr, imported before "
        f"{ROOT}; install this project under its own name (pip install {ROOT}) to use both in one "
        "program"
    )
