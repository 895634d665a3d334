from __future__ import annotations

import json

import pytest
import torch

from scripts import gpu


@pytest.fixture
def commands(monkeypatch):
    """Commands that were run, instead of running them."""
    ran = []

    def python(*arguments):
        ran.append(arguments)
        return 0

    monkeypatch.setattr(gpu, "_python", python)
    return ran


def _main(tmp_path, *arguments):
    with pytest.raises(SystemExit) as exit_:
        gpu.main(
            ["--device", "cpu", "--out", str(tmp_path), "--work", str(tmp_path / "w"), *arguments]
        )
    return exit_.value.code


def _result(tmp_path, stage):
    return json.loads((tmp_path / f"gpu_{stage}.json").read_text())


def test_a_stage_is_recorded_once(tmp_path, commands):
    assert _main(tmp_path, "--stages", "benchmark") == 0
    assert _main(tmp_path, "--stages", "benchmark") == 0
    assert [script for script, *_ in commands] == ["scripts/benchmark.py"]
    result = _result(tmp_path, "benchmark")
    assert result["provenance"]["torch"] == torch.__version__
    assert result["complete"]


def test_outcomes_of_tests_are_recorded(tmp_path, monkeypatch):
    report = """<testsuites><testsuite>
    <testcase classname="tests.a" name="one"/>
    <testcase classname="tests.a" name="two"><failure message="1 is not 2">...</failure></testcase>
    </testsuite></testsuites>"""

    def python(*arguments):
        (tmp_path / "w").mkdir()
        (tmp_path / "w" / "tests.xml").write_text(report)
        return 1

    monkeypatch.setattr(gpu, "_python", python)
    assert _main(tmp_path, "--stages", "tests") == 1
    result = _result(tmp_path, "tests")
    assert (result["passed"], result["complete"]) == (1, False)
    assert result["others"] == {"tests.a.two": "failure: 1 is not 2"}


@pytest.mark.parametrize(
    ("code", "complete", "succeeded"), [(0, True, True), (75, False, True), (2, False, False)]
)
def test_training_goes_on_until_it_is_complete(tmp_path, monkeypatch, code, complete, succeeded):
    def run_for(seconds, *arguments):
        assert (seconds, arguments) == (9, ("basicsr/train.py", "-opt", "run.yml", "--auto_resume"))
        return code

    monkeypatch.setattr(gpu, "run_for", run_for)
    options = ("--stages", "training", "--opt", "run.yml", "--seconds", "9")
    assert _main(tmp_path, *options) == (0 if succeeded else 1)
    assert _result(tmp_path, "training")["complete"] == complete


def test_a_command_is_asked_to_stop_after_its_time():
    saving = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(75)); time.sleep(60)"
    assert gpu.run_for(2, "-c", saving) == 75
    assert gpu.run_for(60, "-c", "raise SystemExit(3)") == 3
