"""One line for each error that pydantic finds in options."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from basicsr.utils.components import model_at
from basicsr.utils.registry import suggest

_LONGEST = 80  # characters of a value in a message


def shown(value: Any) -> str:
    """Return a value as text for a message, in one line of limited length."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # deeply nested, or an integer of thousands of digits
        return f"this {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def error_lines(model: type[BaseModel], raw: Any, error: ValidationError) -> list[str]:
    """Return a line for each error of options that were checked by `model`.

    Args:
        model: class of the options.
        raw: the options as they were read.
        error: what pydantic found.
    """
    found = error.errors(include_url=False)
    return [_line(model, raw, each) for each in found if not _follows(each)]


def _follows(error: ErrorDetails) -> bool:
    """Return whether a list is called too short only because its items are invalid."""
    return error["type"] == "too_short" and len(error["input"]) >= error["ctx"]["min_length"]


def _line(model: type[BaseModel], raw: Any, error: ErrorDetails) -> str:
    """Describe one error: the key path, what is wrong, and what was expected."""
    path, given = _path_in(raw, error["loc"])
    message = _message(model, error, given)
    return f"{path}: {message}" if path else message


def _path_in(raw: Any, loc: Sequence[str | int]) -> tuple[str, Any]:
    """Return the key path of an error in the file, and the value there.

    pydantic's locations have a step for the chosen type of a component, the file has none.
    """
    path, here = "", raw
    for step in loc:
        if isinstance(step, int):
            known = isinstance(here, list | tuple) and step < len(here)
            path, here = f"{path}[{step}]", here[step] if known else None
        elif isinstance(here, dict) and step != here.get("type"):
            key = step if len(step) <= _LONGEST else f"{step[:_LONGEST]}..."
            path, here = f"{path}.{key}" if path else key, here.get(step)
    return path, here


def _message(model: type[BaseModel], error: ErrorDetails, given: Any) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return _unknown_key(model, error["loc"])
        case "missing":
            return "required, but missing"
        case "union_tag_not_found":
            return "needs a 'type'"
        case "union_tag_invalid":
            known = re.findall(r"'([^']*)'", context["expected_tags"])
            tag = str(context["tag"])[:_LONGEST]
            return f"no such type '{tag}'{suggest(tag, known)}; known: {', '.join(known)}"
        case "literal_error":
            known = re.findall(r"'([^']*)'", context["expected"])
            near = suggest(str(given)[:_LONGEST], known)
            return f"expected {context['expected']}, not {shown(given)}{near}"
        case "value_error":
            return str(context["error"])
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"expected a section with 'key: value' lines, not {shown(given)}"
        case "list_type" | "tuple_type":
            return f"expected a list, not {shown(given)}"
        case "string_type":
            return f"expected text, not {shown(given)}{_quoting(given)}"
        case "too_short":
            return f"expected at least {context['min_length']} of them, not {shown(given)}"
        case "too_long":
            return f"expected at most {context['max_length']} of them, not {shown(given)}"
        case "string_pattern_mismatch" if error["input"] != given:  # the key itself
            return _unknown_key(model, error["loc"])
        case "string_pattern_mismatch":
            return f"expected a word of letters, digits, _ + . and -, not {shown(given)}"
        case _:
            expected = error["msg"].removeprefix("Input ").replace("should be", "expected", 1)
            expected = re.sub("^expected (greater|less)", r"expected a number \1", expected)
            return f"{expected}, not {shown(given)}"


def _quoting(given: Any) -> str:
    """Return how to write a value that YAML does not read as text."""
    if isinstance(given, bool):
        return "; YAML reads yes, no, on, off, true and false so: quote the word, '...'"
    if isinstance(given, int | float) and math.isfinite(given):
        return f"; a number must be quoted to be text: '{json.dumps(given)}'"
    return ""


def _unknown_key(model: type[BaseModel], loc: Sequence[str | int]) -> str:
    section, key = model_at(model, loc[:-1]), str(loc[-1])[:_LONGEST]
    known = sorted(section.model_fields)
    return f"unknown key{suggest(key, known)}; known here: {', '.join(known)}"
