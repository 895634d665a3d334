"""Restoring and measuring a data set: the same code for validation and for `test.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from basicsr.data import ImagePair, RestorationDataset
from basicsr.inference.restorer import Restorer
from basicsr.io.images import to_levels, write_png
from basicsr.metrics import Scores, measure
from basicsr.utils.distributed import World
from basicsr.utils.errors import Stopped


class ImageScores(NamedTuple):
    """One image's scores by protocol: of the restored image, and of the degraded one."""

    name: str
    restored: dict[str, Scores]
    degraded: dict[str, Scores]


Keep = Callable[[str, np.ndarray, ImagePair], None]
"""Called with an image's name, its restored 8-bit image, and the pair it comes from."""


def evaluate(
    restorer: Restorer,
    source: RestorationDataset,
    protocols: Sequence[str],
    quantize_mode: str,
    keep: Keep | None = None,
    world: World | None = None,
    before_each: Callable[[], None] = lambda: None,
) -> list[ImageScores]:
    """Restore every image of `source` and measure it where there is a clean one.

    The processes of a `world` share the images; each of them gets all scores, which are those of a
    single process. `before_each` is called before each image and may raise Stopped, which all
    processes then raise.
    """
    world = world or World()
    scores: list[ImageScores] = []
    stopped = None
    indices = range(world.rank, len(source), world.size)
    hidden = None if world.is_main else True
    try:
        for index in tqdm(indices, "restoring", leave=False, disable=hidden):
            before_each()
            scores += _evaluated(restorer, source, index, protocols, quantize_mode, keep)
    except Stopped as stop:
        stopped = stop
    shares = world.gather(None if stopped else scores)
    if None in shares:
        raise stopped or Stopped("a signal to another process")
    return [shares[i % world.size][i // world.size] for i in range(sum(map(len, shares)))]


def pictures_in(folder: Path, source: RestorationDataset) -> Keep:
    """Writes restored images of `source` as PNG into `folder/restored`.

    Where the rainy images are drawn rather than read, they and their clean ones are written too
    (`folder/rainy`, `folder/clean`).
    """

    def keep(name: str, image: np.ndarray, pair: ImagePair) -> None:
        write_png(folder / "restored" / f"{name}.png", image)
        if source.synthetic and pair.gt is not None:
            write_png(folder / "rainy" / f"{name}.png", pair.lq)
            write_png(folder / "clean" / f"{name}.png", pair.gt)

    return keep


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """The mean over images, each image counting once."""
    return Scores(*(float(np.mean(values)) for values in zip(*scores, strict=True)))


def _evaluated(
    restorer: Restorer,
    source: RestorationDataset,
    index: int,
    protocols: Sequence[str],
    quantize_mode: str,
    keep: Keep | None,
) -> list[ImageScores]:
    """The image's scores; none where it has no clean one.

    `dtpnet` is defined on the network's unrounded output, the others on 8-bit images.
    """
    pair, name = source.sample(index), source.names[index]
    restored = restorer(pair.lq)
    image = to_levels(restored, np.uint8, quantize_mode)
    if keep is not None:
        keep(name, image, pair)
    if pair.gt is None:
        return []
    gt = pair.gt
    return [
        ImageScores(
            name,
            {p: measure(restored if p == "dtpnet" else image, gt, p) for p in protocols},
            {p: measure(pair.lq, gt, p) for p in protocols},
        )
    ]
