"""Messages for users of the commands and for visitors of the web page."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import basicsr
from basicsr.utils import errors
from basicsr.utils.errors import remedy, write_for_page

LIBRARY = Path(basicsr.__file__).parent
# Packages with messages that the page shows, without modules that it does not use
FOLDERS = ("archs", "inference", "io", "page")
OTHERS = {
    "didmdn_arch.py",
    "hub_files.py",
    "mat_blocks.py",
    "openvino_network.py",
    "stored_files.py",
    "tasks.py",
}
OPTION = re.compile(r"(?<![-\w])--[a-z]|\bbasicsr/\w+\.py|\bscripts/|\bpip install")


def test_a_message_addresses_its_reader(monkeypatch):
    monkeypatch.setattr(errors, "_on_page", False)
    assert remedy("set --memory", page="use a smaller version") == "set --memory"
    write_for_page()
    assert remedy("set --memory", page="use a smaller version") == "use a smaller version"


def messages(node: ast.AST) -> Iterator[str]:
    """Yield the texts of a module, without docstrings and texts for users of the commands."""
    is_remedy = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "remedy"
    for child in ast.iter_child_nodes(node):
        is_docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
        if is_docstring or (is_remedy and child is node.args[0]):
            continue
        if isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child.value
        yield from messages(child)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_page_names_no_options_of_commands(folder):
    found = {
        f"{file.name}: {text}"
        for file in (LIBRARY / folder).rglob("*.py")
        if file.name not in OTHERS
        for text in messages(ast.parse(file.read_text()))
        if OPTION.search(text)
    }
    assert found == set()
