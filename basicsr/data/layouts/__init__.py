"""Layouts of public data sets.

Every module here but `base` and `lists` holds the `LAYOUTS` of one task.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from basicsr.data.layouts import base
from basicsr.data.layouts.base import (
    Folders,
    Form,
    Layout,
    PairFiles,
    Pairing,
    Side,
    SideBySide,
    match_folders,
)

__all__ = [
    "LAYOUTS",
    "Folders",
    "Form",
    "Layout",
    "PairFiles",
    "Pairing",
    "Side",
    "SideBySide",
    "match",
    "match_folders",
]


def collect() -> dict[str, Layout]:
    """Return the layouts of all tasks by name."""
    layouts: dict[str, Layout] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name not in ("base", "lists"):
            added = importlib.import_module(f"{__name__}.{module.name}").LAYOUTS
            if twice := layouts.keys() & added.keys():
                raise ValueError(f"layouts/{module.name}.py: {min(twice)} is defined already")
            layouts |= added
    return layouts


LAYOUTS = collect()


def match(root: str | Path, layout: str) -> Pairing:
    """Pair the files of the data set in `root`, which is laid out as `layout`.

    Raises DataError if the layout is unknown or none of its forms is found in the folder.
    """
    return base.match(root, layout, LAYOUTS)
