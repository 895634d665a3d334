"""Loading and saving option files, with one line for each error."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import ValidationError

from basicsr.options.adjustments import follow_total_iter, require_kind
from basicsr.options.foreign import is_foreign, translated
from basicsr.options.schema import Options, TrainOptions
from basicsr.options.yaml_files import assign, read_yaml
from basicsr.utils.errors import OptionsError
from basicsr.utils.files import atomic_write
from basicsr.utils.option_errors import error_lines

AnyOptions = TypeVar("AnyOptions", bound=Options)


MOST_ERRORS = 30
"""Errors of a file that are printed."""


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
    lines = follow_total_iter(raw, force)
    try:
        options = kind.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        errors += error_lines(kind, raw, error)
    if len(errors) > MOST_ERRORS:
        rest = f"there are {len(errors) - MOST_ERRORS} more errors; correct these first"
        errors = [*errors[:MOST_ERRORS], rest]
    if errors:
        raise OptionsError("\n".join(f"{file}: {each}" for each in errors))
    if mapped:
        lines.insert(0, "\n  ".join(["translated to options of this project", *mapped]))
    if os.environ.get("RANK", "0") == "0":  # once in a distributed run
        for line in lines:
            print(f"{file}: {line}")
    return options


def save_options(options: Options, file: Path) -> None:
    """Write the options, including defaults, as a file that can be loaded again."""
    plain = options.model_dump(mode="json")
    with atomic_write(file) as content:
        content.write(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).encode())
