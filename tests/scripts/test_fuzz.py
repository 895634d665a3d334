"""A short run of the fuzzer, and that it notices faults."""

from __future__ import annotations

import importlib
import logging
import random

import pytest
from fuzz_faults import KINDS as FAULTS

INPUTS = 20
ALL = ("checkpoints", "options")


@pytest.fixture
def module(load_script):
    load_script("fuzz")  # puts scripts/ into the path
    return lambda name: importlib.import_module(f"fuzzing.{name}")


@pytest.mark.parametrize("kind", ALL)
def test_mutated_inputs_are_read_or_refused(module, tmp_path, kind):
    """The seed is that of this test alone; long runs are described in CONTRIBUTING.md."""
    target, outcome_of = module(kind).TARGET, module("pool").outcome_of
    logging.disable()
    try:
        for number in range(INPUTS):
            folder = tmp_path / str(number)
            folder.mkdir()
            outcome, text = outcome_of(target, f"suite/{kind}/{number}", folder)
            assert outcome in ("ok", "error"), f"{folder}: {text}"
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize("kind", ALL)
def test_inputs_depend_on_the_seed_alone(module, tmp_path, kind):
    target = module(kind).TARGET
    contents = []
    for attempt in ("a", "b"):
        (tmp_path / attempt).mkdir()
        made = [target.make(random.Random(f"7/{n}"), tmp_path / attempt) for n in range(5)]
        contents.append([(path.name, path.read_bytes()) for path in made])
    assert contents[0] == contents[1]


def test_all_kinds_are_offered(load_script):
    assert set(load_script("fuzz").KINDS) >= set(ALL)


@pytest.mark.slow
def test_faults_are_noticed(module, tmp_path):
    pool = module("pool")
    reader = pool.Reader("fuzz_faults", tmp_path / "input", pool.Limits(5.0, 0.5))
    try:
        assert [reader.read(kind)[0] for kind in FAULTS] == list(FAULTS)
        assert reader.read("ok")[0] == "ok"
    finally:
        reader.stop()


def test_a_fault_is_kept_and_decides_the_exit_code(run_script, module, tmp_path, monkeypatch):
    pool = module("pool")
    monkeypatch.setattr(pool, "Reader", lambda kind, folder, limits: _Failing(folder))
    code, printed, _ = run_script("fuzz", "--inputs", 2, "--kinds", "options", "-o", tmp_path)
    assert code == 1
    assert "options-0-0-trace: ValueError: a bug" in printed
    assert (tmp_path / "options-0-1-trace" / "input").read_text() == "x"


class _Failing:
    def __init__(self, folder):
        self.folder = folder

    def read(self, seed):
        self.folder.mkdir(exist_ok=True)
        (self.folder / "input").write_text("x")
        return "trace", "Traceback\nValueError: a bug\n"

    def stop(self):
        pass
