"""Layouts of public data sets. Every module here but `base` holds the `LAYOUTS` of one task."""

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

LAYOUTS: dict[str, Layout] = {}

for _module in pkgutil.iter_modules(__path__):
    if _module.name != "base":
        _layouts = importlib.import_module(f"{__name__}.{_module.name}").LAYOUTS
        if _twice := LAYOUTS.keys() & _layouts.keys():
            raise ValueError(f"layouts/{_module.name}.py: {min(_twice)} is defined already")
        LAYOUTS |= _layouts


def match(root: str | Path, layout: str) -> Pairing:
    """Pair the files of the data set in `root`, which is laid out as `layout`.

    Raises DataError if the layout is unknown or none of its forms is found in the folder.
    """
    return base.match(root, layout, LAYOUTS)
