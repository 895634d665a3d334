"""Photographs that the page offers to try: those of scikit-image, degraded for each task."""

from __future__ import annotations

from pathlib import Path

from basicsr.data.degradations.rain import Preset
from basicsr.data.rain_dataset import SyntheticRainDataset
from basicsr.io.images import write_png

RAINY: dict[str, Preset] = {"astronaut": "heavy", "coffee": "light", "chelsea": "mixed"}
"""Photographs of scikit-image, and presets of their rain."""


def write_examples(folder: Path) -> list[Path]:
    """Write the photographs with rain as PNG files; return their paths."""
    files = []
    for name, rain in RAINY.items():
        dataset = SyntheticRainDataset("skimage", files=(f"{name}.png",), rain=rain)
        lq = dataset.sample(0).lq
        assert lq is not None
        files.append(folder / f"{name}.png")
        write_png(files[-1], lq)
    return files
