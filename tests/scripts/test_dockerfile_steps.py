"""The Dockerfile: its steps in a folder, with a stand-in for pip."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

from basicsr.utils.errors import DataError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(load_script):
    return load_script("dockerfile_steps")


@pytest.fixture
def steps(script):
    return list(script.instructions((ROOT / "Dockerfile").read_text()))


def test_the_steps_install_the_pins_and_then_the_project(tmp_path, monkeypatch, script, steps):
    programs = tmp_path / "programs"
    programs.mkdir()
    log = tmp_path / "log"
    (programs / "python").write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
    (programs / "python").chmod(0o755)
    monkeypatch.setitem(script.SIMULATED, "apt-get", ":")
    monkeypatch.setenv("TORCH_INDEX", "somewhere")
    script.build(steps, tmp_path, programs)
    install = "-m pip install --no-cache-dir"
    assert log.read_text().splitlines() == [
        f"{install} --index-url somewhere -r torch.txt",
        f"{install} -r pins.txt",
        f"{install} --no-deps .",
    ]
    image = tmp_path / "opt" / "derain"
    pins = (image / "pins.txt").read_text()
    assert pins in (ROOT / "requirements.txt").read_text()
    assert "gradio==" in pins
    assert "pytest" not in pins
    torch = (image / "torch.txt").read_text().split("\n")
    assert {re.split("[=;]", line)[0] for line in torch if line} == {"torch", "torchvision"}
    assert (image / "basicsr" / "page" / "paste.js").exists()
    assert (image / "pretrained_models").is_dir()
    assert not (image / ".git").exists()
    assert not (image / "tests").exists()


def test_a_step_that_fails_is_named(tmp_path, script):
    steps = list(script.instructions("ARG A=3\n# no step\nRUN exit \\\n    $A\n"))
    with pytest.raises(DataError, match=r"^Dockerfile: RUN exit \$A: exit code 3$"):
        script.build(steps, tmp_path, tmp_path)


def test_the_command_of_the_image_is_one_of_the_project(steps):
    (command,) = (step.text for step in steps if step.name == "CMD")
    pyproject = configparser.ConfigParser(strict=False)
    scripts = (ROOT / "pyproject.toml").read_text().partition("[project.scripts]")[2]
    pyproject.read_string("[scripts]\n" + scripts.partition("\n[")[0])
    assert re.findall(r'"([^"]*)"', command)[0] in pyproject["scripts"]
