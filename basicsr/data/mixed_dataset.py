"""Data set of several data sets."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema

from basicsr.data.base import ImagePair, OtherImageError, RestorationDataset
from basicsr.utils.components import Component, OneOf, fields_of
from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import DATASET_REGISTRY


class _AnyPart(OneOf):
    """Choice among all registered data sets but mixtures.

    The registry is read when a schema is built, after all data sets are registered.
    """

    def __init__(self) -> None:
        super().__init__({})

    def __get_pydantic_core_schema__(
        self, section: type[Component], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        names = (name for name in DATASET_REGISTRY.names() if name != "MixedDataset")
        self.choices = {name: fields_of(DATASET_REGISTRY.entry(name)) for name in names}
        return super().__get_pydantic_core_schema__(section, handler)


Part = Annotated[Component, _AnyPart()]


@DATASET_REGISTRY.register
class MixedDataset(RestorationDataset):
    """Images of all `parts`, each the options of a data set: a `type` and its arguments.

    An epoch visits every image once: the share of a part is its number of images. An image's name
    begins with the number of its part, from 1. Raises OptionsError for parts without ground truth
    or with other channels or types than the first.
    """

    def __init__(self, parts: Annotated[tuple[Part, ...], Field(min_length=1)]) -> None:
        self.parts: list[RestorationDataset] = [
            DATASET_REGISTRY.build(dict(part)) for part in parts
        ]
        first = self.parts[0]
        for number, part in enumerate(self.parts, 1):
            if not part.has_gt:
                raise OptionsError(f"parts: {number} ({_kind(part)}) has no ground truth")
            if _format(part) != _format(first):
                raise OptionsError(
                    f"parts: {number} ({_kind(part)}) has {_format(part)}, but 1 ({_kind(first)}) "
                    f"has {_format(first)}; set color and bit_depth"
                )
        self.starts = list(accumulate((len(part) for part in self.parts), initial=0))
        self.names = [f"{n}/{name}" for n, part in enumerate(self.parts, 1) for name in part.names]
        self.synthetic = any(part.synthetic for part in self.parts)
        self.description = "; ".join(part.description for part in self.parts)
        self.lq_channels, self.gt_channels = first.lq_channels, first.gt_channels
        self.bit_depth = first.bit_depth

    @property
    def lq_dtype(self) -> np.dtype:
        return self.parts[0].lq_dtype

    def _part(self, index: int) -> tuple[RestorationDataset, int]:
        """Return the data set that an image belongs to, and its index there."""
        number = bisect(self.starts, index) - 1
        return self.parts[number], index - self.starts[number]

    def read(self, index: int) -> ImagePair:
        part, index = self._part(index)
        return part.read(index)

    def files(self, index: int) -> Sequence[Path]:
        part, index = self._part(index)
        return part.files(index)

    def shared_files(self) -> Sequence[Path]:
        return [path for part in self.parts for path in part.shared_files()]

    def degrade(self, index: int, pair: ImagePair, rng: np.random.Generator) -> ImagePair:
        part, own_index = self._part(index)
        try:
            return part.degrade(own_index, pair, rng)
        except OtherImageError as error:
            number = self.parts.index(part) + 1
            raise OtherImageError(f"{number}/{error.name}", str(error)) from None

    def sample(self, index: int) -> ImagePair:
        part, index = self._part(index)
        return part.sample(index)


def _kind(part: RestorationDataset) -> str:
    return type(part).__name__


def _format(part: RestorationDataset) -> str:
    return (
        f"lq of {part.lq_channels} x {part.lq_dtype} and gt of {part.gt_channels} x {part.gt_dtype}"
    )
