"""Several data sets as one."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from basicsr.data.base import ImagePair, RestorationDataset
from basicsr.data.paired_dataset import PairedImageDataset
from basicsr.data.rain_dataset import SyntheticRainDataset
from basicsr.utils.components import Component, OneOf, fields_of
from basicsr.utils.registry import DATASET_REGISTRY

_KINDS = [cls.__name__ for cls in (PairedImageDataset, SyntheticRainDataset)]
Part = Annotated[
    Component,
    OneOf({kind: fields_of(DATASET_REGISTRY.entry(kind)) for kind in _KINDS}),
]


@DATASET_REGISTRY.register
class MixedDataset(RestorationDataset):
    """The images of all `parts`, each the options of a data set: a `type` and its arguments.

    An epoch visits every image once, so that a part's share is its number of images. An image's
    name begins with the number of its part, from 1.
    """

    def __init__(self, parts: Annotated[tuple[Part, ...], Field(min_length=1)]) -> None:
        self.parts: list[RestorationDataset] = [
            DATASET_REGISTRY.build(dict(part)) for part in parts
        ]
        self.starts = list(accumulate((len(part) for part in self.parts), initial=0))
        self.names = [f"{n}/{name}" for n, part in enumerate(self.parts, 1) for name in part.names]
        self.synthetic = any(part.synthetic for part in self.parts)
        self.description = "; ".join(part.description for part in self.parts)

    def _part(self, index: int) -> tuple[RestorationDataset, int]:
        """The data set that an image belongs to, and its index there."""
        place = bisect(self.starts, index) - 1
        return self.parts[place], index - self.starts[place]

    def read(self, index: int) -> ImagePair:
        part, index = self._part(index)
        return part.read(index)

    def files(self, index: int) -> Sequence[Path]:
        part, index = self._part(index)
        return part.files(index)

    def render(self, index: int, pair: ImagePair, rng: np.random.Generator) -> ImagePair:
        part, index = self._part(index)
        return part.render(index, pair, rng)

    def sample(self, index: int) -> ImagePair:
        part, index = self._part(index)
        return part.sample(index)
