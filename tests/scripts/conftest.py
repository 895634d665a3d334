"""Running the tools of scripts/ inside the test process."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def load_script(monkeypatch) -> Callable[[str], Any]:
    """A function (script) -> its module."""

    monkeypatch.syspath_prepend(SCRIPTS)  # where modules beside a script are imported from

    def load(name: str) -> Any:
        specification = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        monkeypatch.setitem(sys.modules, name, module)  # worker processes look functions up there
        specification.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def run_script(capsys, load_script) -> Callable[..., tuple[int, str, str]]:
    """A function (script, *arguments) -> (exit code, what it printed, what it complained)."""

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        module = load_script(name)
        code = 0
        try:
            module.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run
