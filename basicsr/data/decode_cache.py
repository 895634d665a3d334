"""Decoded images kept where all loader workers see them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np

from .image_files import read_image

CacheKind = Literal["none", "memory", "disk"]


class DecodeCache:
    """Reads images."""

    def __init__(self, files: Iterable[Path], kind: CacheKind, gib: float) -> None:
        self.files = files

    def __call__(self, path: Path) -> np.ndarray:
        return read_image(path)
