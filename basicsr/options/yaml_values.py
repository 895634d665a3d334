"""Parsing YAML to plain values: text, numbers, booleans, lists and mappings, within bounds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from basicsr.options.yaml_errors import SINGLE_QUOTES, Explained, explained
from basicsr.utils.errors import OptionsError

MAX_DEPTH = 32
MAX_VALUES = 100_000
_STANDARD = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_LARGEST = 2**64


class _Fault(Exception):
    """A fault of the text at a node."""

    def __init__(self, node: yaml.Node, message: str) -> None:
        super().__init__(message)
        self.node = node


class _Loader(yaml.SafeLoader):
    """Loader that reads 1e-4 as a number, dates and 12:30 as text, and limits the nesting."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            mark = self.peek_event().start_mark
            raise _Fault(yaml.ScalarNode("", "", mark, mark), "nested too deeply for options")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("merge", r"<<", "<"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (
        "bool",
        r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF",
        "yYnNtTfFoO",
    ),
    ("int", _INTEGER.pattern, "-+0123456789"),
    ("float", f"{_FLOAT.pattern}|{_SPECIAL.pattern}", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(_STANDARD + _tag, re.compile(f"({_pattern})$"), list(_first))


def parse_yaml(text: str, where: str, lines: bool = True) -> Any:
    """Return the value that a YAML text describes.

    Args:
        text: the text.
        where: where it stands, for messages.
        lines: name the lines of errors.

    Raises:
        OptionsError: It is no valid YAML, or holds what options do not have.
    """
    loader = _Loader("")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _Values().value(node)
    except yaml.YAMLError as error:
        fault = explained(error, text)
    except _Fault as error:
        fault = Explained(error.node.start_mark.line + 1, str(error))
    finally:
        loader.dispose()
    line = f", line {fault.line}" if fault.line and lines else ""
    raise OptionsError(f"{where}{line}: {fault.text}")


class _Values:
    """Plain values of nodes. An alias has a copy of the value that it stands for."""

    def __init__(self) -> None:
        self.count = 0
        self.open: set[int] = set()  # nodes whose values are being built

    def value(self, node: yaml.Node) -> Any:
        self.count += 1
        if self.count > MAX_VALUES:
            raise _Fault(
                node,
                f"more than {MAX_VALUES:,} values; the aliases (*) of the file repeat each other",
            )
        if id(node) in self.open:
            raise _Fault(node, "an alias (*) stands inside of the value that it repeats")
        self.open.add(id(node))
        try:
            return self._value(node)
        finally:
            self.open.discard(id(node))

    def _value(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
            return _SCALARS[node.tag](node)
        if isinstance(node, yaml.SequenceNode) and node.tag == _STANDARD + "seq":
            return [self.value(each) for each in node.value]
        if isinstance(node, yaml.MappingNode) and node.tag == _STANDARD + "map":
            return self._mapping(node)
        tag = str(node.tag).replace(_STANDARD, "!!", 1)[:60]
        raise _Fault(node, f"the tag {tag} does not suit its value or options; remove it")

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _Fault(key, "a key must be a plain word")
            if key.tag == _STANDARD + "merge":
                for each in self._merged(key, value):
                    merged = {**each, **merged}
            elif key.value in own:
                raise _Fault(key, f"the key '{key.value[:60]}' stands here twice")
            else:
                own[_text(key)] = self.value(value)
        return {**merged, **own}

    def _merged(self, key: yaml.Node, node: yaml.Node) -> Iterator[dict[str, Any]]:
        """Yield the mappings that `<<: *name` or `<<: [*name, *other]` copies."""
        found = self.value(node)
        for each in found if isinstance(found, list) else [found]:
            if not isinstance(each, dict):
                raise _Fault(key, "'<<' copies the keys of a section; name one with *")
            yield each


def _text(node: yaml.ScalarNode) -> str:
    value = str(node.value)
    if node.style == '"' and any(ord(character) < 32 for character in value):
        raise _Fault(node, SINGLE_QUOTES)
    if any(0xD800 <= ord(character) < 0xE000 for character in value):
        raise _Fault(node, "half of a character (\\uD8.. to \\uDF..); write the character itself")
    return value


def _boolean(node: yaml.ScalarNode) -> bool:
    value = node.value.lower()
    if value not in ("yes", "true", "on", "no", "false", "off"):
        raise _wrong(node, "bool, which is true or false")
    return value in ("yes", "true", "on")


def _integer(node: yaml.ScalarNode) -> int:
    text = node.value.replace("_", "")
    digits = text.lstrip("+-").lower()
    if not _INTEGER.fullmatch(node.value) or digits in ("0x", "0b"):
        raise _wrong(node, "int, a whole number")
    if len(digits) > 30:
        raise _Fault(node, f"a number of {len(digits)} digits, which is too large")
    base = {"0x": 16, "0b": 2}.get(digits[:2], 10)
    if base == 10 and len(digits) > 1 and digits[0] == "0":
        raise _Fault(
            node, f"{node.value}: a number does not begin with 0; quote it, '{node.value}', if it "
            "is text"
        )  # fmt: skip
    value = int(digits, base)
    if value >= _LARGEST:
        raise _Fault(node, f"{node.value} is too large")
    return -value if text.startswith("-") else value


def _float(node: yaml.ScalarNode) -> float:
    text = node.value.replace("_", "").lower()
    if _SPECIAL.fullmatch(node.value):
        return float(text.replace(".", ""))
    if not _FLOAT.fullmatch(node.value) or len(text) > 400:
        raise _wrong(node, "float, a number")
    return float(text)


def _null(node: yaml.ScalarNode) -> None:
    if node.value not in ("", "~", "null", "Null", "NULL"):
        raise _wrong(node, "null, nothing")


def _wrong(node: yaml.ScalarNode, kind: str) -> _Fault:
    return _Fault(node, f"'{node.value[:60]}' is no !!{kind}; correct it, or remove the tag")


_SCALARS: dict[str, Callable[[yaml.ScalarNode], Any]] = {
    _STANDARD + "str": _text,
    _STANDARD + "bool": _boolean,
    _STANDARD + "int": _integer,
    _STANDARD + "float": _float,
    _STANDARD + "null": _null,
}
