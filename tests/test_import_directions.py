"""Imports inside the library go one way and form no cycles. Imports inside functions count too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From top to bottom; a package may import those of the lines below its own, and itself.
LAYERS = (
    ("train", "test", "restore", "measure", "app"),
    ("training", "page"),
    ("evaluation",),
    ("inference",),
    ("options",),
    ("models",),
    ("archs", "data", "losses", "metrics"),
    ("io",),
    ("utils",),
)
LEVEL = {package: level for level, packages in enumerate(LAYERS) for package in packages}


def module_names() -> dict[str, Path]:
    """Return the files of the library by module name."""
    names = {}
    for file in sorted((ROOT / "basicsr").rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts).removesuffix(".__init__")] = file
    return names


MODULES = module_names()


def imports(module: str, source: str, is_package: bool = False) -> Iterator[str]:
    """Yield the modules of the library that `source`, the text of `module`, imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: None if is_package else -1]
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, base]).rstrip(".")
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                if submodule in MODULES:
                    yield submodule
                elif base in MODULES:
                    yield base


def graph() -> dict[str, set[str]]:
    return {
        module: set(imports(module, file.read_text(), file.name == "__init__.py"))
        for module, file in MODULES.items()
    }


def package(module: str) -> str:
    """Return the part of the library that a module belongs to, "" for the library itself."""
    return module.partition(".")[2].partition(".")[0]


def is_allowed(importer: str, imported: str) -> bool:
    upper, lower = package(importer), package(imported)
    return lower in ("", upper) or LEVEL[upper] < LEVEL[lower]


def test_every_package_has_a_layer():
    assert {package(module) for module in MODULES} - {""} == set(LEVEL)


def test_imports_go_down():
    upwards = {
        f"{module} imports {imported}"
        for module, found in graph().items()
        for imported in found
        if package(module) and not is_allowed(module, imported)
    }
    assert upwards == set()


def test_there_are_no_cycles():
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(error.args[1][::-1]))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import basicsr.io.images as images", ["basicsr.io.images"]),
        ("from basicsr.io import images, video", ["basicsr.io.images", "basicsr.io.video"]),
        ("from basicsr.data import build_dataset", ["basicsr.data"]),
        ("from basicsr import __version__, losses", ["basicsr", "basicsr.losses"]),
        ("def f():\n    from ..io import images", ["basicsr.io.images"]),
        ("from .base import Metric", ["basicsr.archs.base"]),
        ("import torch", []),
    ],
)
def test_imports_are_found(line, found, monkeypatch):
    monkeypatch.setitem(MODULES, "basicsr.archs.base", Path())
    assert list(imports("basicsr.archs.toy_arch", line)) == found


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("basicsr.training.trainer", "basicsr.evaluation.evaluate", True),
        ("basicsr.evaluation.evaluate", "basicsr.training.trainer", False),
        ("basicsr.archs.toy_arch", "basicsr.data", False),
        ("basicsr.archs.toy_arch", "basicsr.archs.base", True),
        ("basicsr.models.cost", "basicsr.options", False),
        ("basicsr.utils.provenance", "basicsr", True),
    ],
)
def test_directions(importer, imported, allowed):
    assert is_allowed(importer, imported) is allowed
