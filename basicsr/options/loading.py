"""Reading an option file, with one line for each of its faults, and writing one."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from basicsr.options.foreign import is_foreign, translated
from basicsr.options.schema import Options, TrainOptions
from basicsr.options.yaml_files import assign, read_yaml
from basicsr.utils.components import model_at
from basicsr.utils.errors import OptionsError
from basicsr.utils.files import atomic_write
from basicsr.utils.registry import suggest

AnyOptions = TypeVar("AnyOptions", bound=Options)


def load_options(kind: type[AnyOptions], file: str | Path, force: Sequence[str] = ()) -> AnyOptions:
    """The options in `file`, with the `--force_yml` assignments "a:b:c=value" applied to them.

    A file of BasicSR or Restormer is translated (after the assignments), and what was mapped is
    printed. Raises OptionsError with one line for every fault.
    """
    raw = read_yaml(Path(file))
    for assignment in force:
        assign(raw, assignment)
    mapped: list[str] = []
    faults: list[str] = []
    if is_foreign(raw):
        raw, mapped, faults = translated(raw, training=issubclass(kind, TrainOptions))
    try:
        options = kind.model_validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        faults += [_line(kind, raw, each) for each in error.errors(include_url=False)]
    if faults:
        raise OptionsError("\n".join(f"{file}: {fault}" for fault in faults))
    if mapped:
        print(f"{file}: translated from the options of BasicSR or Restormer", *mapped, sep="\n  ")
    return options


def save_options(options: Options, file: Path) -> None:
    """Write the effective options, defaults included, as a file that can be loaded again."""
    plain = options.model_dump(mode="json")
    with atomic_write(file) as content:
        content.write(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).encode())


def _line(kind: type[Options], raw: Any, error: ErrorDetails) -> str:
    """One fault in words: the key path, what is wrong with it, and what was expected."""
    path, given = _path_in(raw, error["loc"])
    return f"{path}: {_fault(kind, error, given)}" if path else _fault(kind, error, given)


def _path_in(raw: Any, loc: Sequence[str | int]) -> tuple[str, Any]:
    """pydantic's location as a key path of the file (which has no step for a chosen type)."""
    path, here = "", raw
    for step in loc:
        if isinstance(step, int):
            path, here = f"{path}[{step}]", here[step] if step < len(here) else None
        elif isinstance(here, dict) and step != here.get("type"):
            path, here = f"{path}.{step}" if path else step, here.get(step)
    return path, here


def _fault(kind: type[Options], error: ErrorDetails, given: Any) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            key = str(error["loc"][-1])
            known = sorted(model_at(kind, error["loc"][:-1]).model_fields)
            return f"unknown key{suggest(key, known)}; known here: {', '.join(known)}"
        case "missing":
            return "required, but missing"
        case "union_tag_not_found":
            return "needs a 'type'"
        case "union_tag_invalid":
            known = re.findall(r"'([^']*)'", context["expected_tags"])
            tag = str(context["tag"])
            return f"no such type '{tag}'{suggest(tag, known)}; known: {', '.join(known)}"
        case "literal_error":
            known = re.findall(r"'([^']*)'", context["expected"])
            return f"expected {context['expected']}, not {given!r}{suggest(str(given), known)}"
        case "value_error":
            return str(context["error"])
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"expected a section with 'key: value' lines, not {given!r}"
        case "list_type" | "tuple_type":
            return f"expected a list, not {given!r}"
        case "too_short":
            return f"expected at least {context['min_length']} of them, not {given!r}"
        case "too_long":
            return f"expected at most {context['max_length']} of them, not {given!r}"
        case "string_pattern_mismatch":
            return f"expected a word of letters, digits, _ + . and -, not {given!r}"
        case _:
            expected = error["msg"].removeprefix("Input ").replace("should be", "expected", 1)
            expected = re.sub("^expected (greater|less)", r"expected a number \1", expected)
            return f"{expected}, not {given!r}"
