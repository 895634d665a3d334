"""Restoring and measuring a data set: the same code for validation and for `test.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from basicsr.data import ImagePair, ImageSource, write_png
from basicsr.metrics import Scores, measure
from basicsr.models.restoring import Restorer, quantize


class ImageScores(NamedTuple):
    """One image's scores by protocol: of the restored image, and of the degraded one."""

    name: str
    restored: dict[str, Scores]
    degraded: dict[str, Scores]


def evaluate(
    restorer: Restorer,
    source: ImageSource,
    protocols: Sequence[str],
    quantize_mode: str,
    folder: Path | None = None,
) -> list[ImageScores]:
    """Restore every image of `source` and measure it where there is a clean one.

    The restored images are written as PNG into `folder/restored`. Where the rainy images are drawn
    rather than read, they and their clean ones are written too (`folder/rainy`, `folder/clean`).
    """
    scores = []
    for index in tqdm(range(len(source)), "restoring", leave=False, disable=None):
        pair = source.sample(index)
        restored = restorer(pair.lq)
        image = quantize(restored, quantize_mode)
        name = source.names[index]
        if folder is not None:
            _save(folder, name, image, pair, source)
        if pair.gt is not None:
            scores.append(_measured(name, restored, image, pair.lq, pair.gt, protocols))
    return scores


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """The mean over images, each image counting once."""
    return Scores(*(float(np.mean(values)) for values in zip(*scores, strict=True)))


def _measured(
    name: str,
    restored: np.ndarray,
    image: np.ndarray,
    lq: np.ndarray,
    gt: np.ndarray,
    protocols: Sequence[str],
) -> ImageScores:
    """`dtpnet` is defined on the network's unrounded output, the others on 8-bit images."""
    return ImageScores(
        name,
        {p: measure(restored if p == "dtpnet" else image, gt, p) for p in protocols},
        {p: measure(lq, gt, p) for p in protocols},
    )


def _save(folder: Path, name: str, image: np.ndarray, pair: ImagePair, source: ImageSource) -> None:
    write_png(folder / "restored" / f"{name}.png", image)
    if source.synthetic and pair.gt is not None:
        write_png(folder / "rainy" / f"{name}.png", pair.lq)
        write_png(folder / "clean" / f"{name}.png", pair.gt)
