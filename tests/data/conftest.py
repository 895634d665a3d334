"""Small image files for the tests of data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from basicsr.io.images import write_png


@pytest.fixture
def make_images(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes different PNGs of noise below tmp_path, which it returns."""
    written = iter(range(10_000))

    def make(names: Iterable[str], height: int = 6, width: int = 8) -> Path:
        for name in names:
            rng = np.random.default_rng(next(written))
            image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            path = tmp_path / name
            write_png(path, image)
        return tmp_path

    return make
