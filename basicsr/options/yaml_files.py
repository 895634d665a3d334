"""Reading YAML safely and strictly, and replacing single values from the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from basicsr.utils.errors import OptionsError


class _Loader(yaml.SafeLoader):
    """Safe loader that reads 1e-4 as a number and a date as text, and rejects repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a plain word", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' stands here twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:timestamp"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_yaml(file: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file. Raises OptionsError, with the line, if there is none."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise OptionsError(f"{file}: there is no such option file") from None
    except UnicodeDecodeError:
        raise OptionsError(f"{file}: not a text file") from None
    content = _parse(text, str(file))
    if not isinstance(content, dict):
        raise OptionsError(f"{file}: an option file holds 'key: value' lines; this one does not")
    return content


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise OptionsError(f"{where}{line}: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise OptionsError(f"{where}: {' '.join(str(error).split())}") from None


def assign(raw: dict[str, Any], assignment: str) -> None:
    """Set one value of `raw` in place, as `assignment` "a:b:c=value" says.

    Missing sections are created.
    """
    path, equals, value = assignment.partition("=")
    if not equals or not path:
        raise OptionsError(f"--force_yml {assignment}: expected a:b:c=value")
    *parents, last = path.split(":")
    place: Any = raw
    for step, key in enumerate(parents):
        place = _item(place, key, assignment, ":".join(parents[:step]), make=True)
    if isinstance(place, list):
        _item(place, last, assignment, ":".join(parents))
        place[int(last)] = _parse(value, f"--force_yml {assignment}")
    elif isinstance(place, dict):
        place[last] = _parse(value, f"--force_yml {assignment}")
    else:
        raise OptionsError(
            f"--force_yml {assignment}: '{':'.join(parents)}' is a value, not a section"
        )


def _item(place: Any, key: str, assignment: str, path: str, make: bool = False) -> Any:
    if isinstance(place, list):
        if not key.isdecimal() or int(key) >= len(place):
            raise OptionsError(
                f"--force_yml {assignment}: '{path}' is a list of {len(place)}; "
                f"'{key}' is no index of it (the first is 0)"
            )
        return place[int(key)]
    if isinstance(place, dict):
        if make and place.get(key) is None:
            place[key] = {}
        return place[key]
    raise OptionsError(f"--force_yml {assignment}: '{path}' is a value, not a section")
