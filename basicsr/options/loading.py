"""Loading and saving option files, with one line for each error."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from basicsr.options.adjustments import follow_total_iter, require_kind
from basicsr.options.foreign import is_foreign, translated
from basicsr.options.schema import Options, TrainOptions
from basicsr.options.yaml_files import assign, read_yaml
from basicsr.utils.components import model_at
from basicsr.utils.errors import OptionsError
from basicsr.utils.files import atomic_write
from basicsr.utils.registry import suggest

AnyOptions = TypeVar("AnyOptions", bound=Options)


def load_options(kind: type[AnyOptions], file: str | Path, force: Sequence[str] = ()) -> AnyOptions:
    """Load and check an option file.

    A file of BasicSR or Restormer is translated, after the assignments, and the translation is
    printed.

    Args:
        kind: class of the options.
        file: the YAML file.
        force: assignments of `--force_yml`, "a:b:c=value".

    Raises:
        OptionsError: with one line for each error.
    """
    raw = read_yaml(Path(file))
    for assignment in force:
        assign(raw, assignment)
    training = issubclass(kind, TrainOptions)
    try:
        require_kind(raw, training)
    except OptionsError as error:
        raise OptionsError(f"{file}: {error}") from None
    mapped: list[str] = []
    errors: list[str] = []
    if is_foreign(raw):
        raw, mapped, errors = translated(raw, training)
    for line in follow_total_iter(raw, force):
        print(f"{file}: {line}")
    try:
        options = kind.model_validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        errors += [_line(kind, raw, each) for each in error.errors(include_url=False)]
    if errors:
        raise OptionsError("\n".join(f"{file}: {each}" for each in errors))
    if mapped:
        print(f"{file}: translated from the options of BasicSR or Restormer", *mapped, sep="\n  ")
    return options


def save_options(options: Options, file: Path) -> None:
    """Write the options, including defaults, as a file that can be loaded again."""
    plain = options.model_dump(mode="json")
    with atomic_write(file) as content:
        content.write(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).encode())


def _line(kind: type[Options], raw: Any, error: ErrorDetails) -> str:
    """Describe one error: the key path, what is wrong, and what was expected."""
    path, given = _path_in(raw, error["loc"])
    message = _message(kind, error, given)
    return f"{path}: {message}" if path else message


def _path_in(raw: Any, loc: Sequence[str | int]) -> tuple[str, Any]:
    """Return the key path of an error in the file, and the value there.

    pydantic's locations have a step for the chosen type of a component, the file has none.
    """
    path, here = "", raw
    for step in loc:
        if isinstance(step, int):
            path, here = f"{path}[{step}]", here[step] if step < len(here) else None
        elif isinstance(here, dict) and step != here.get("type"):
            path, here = f"{path}.{step}" if path else step, here.get(step)
    return path, here


def _message(kind: type[Options], error: ErrorDetails, given: Any) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return _unknown_key(kind, error["loc"])
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
        case "string_pattern_mismatch" if error["input"] != given:  # the key itself
            return _unknown_key(kind, error["loc"])
        case "string_pattern_mismatch":
            return f"expected a word of letters, digits, _ + . and -, not {given!r}"
        case _:
            expected = error["msg"].removeprefix("Input ").replace("should be", "expected", 1)
            expected = re.sub("^expected (greater|less)", r"expected a number \1", expected)
            return f"{expected}, not {given!r}"


def _unknown_key(kind: type[Options], loc: Sequence[str | int]) -> str:
    section, key = model_at(kind, loc[:-1]), str(loc[-1])
    known = sorted(section.model_fields)
    return f"unknown key{suggest(key, known)}; known here: {', '.join(known)}"
