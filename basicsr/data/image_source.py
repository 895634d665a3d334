"""What every data set is: a row of named images that are read by their index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from .randomness import SAMPLE, generator


class ImagePair(NamedTuple):
    """A rainy image and, where there is one, its clean counterpart: H x W x 3 uint8 RGB."""

    lq: np.ndarray
    gt: np.ndarray | None


class ImageSource(ABC):
    """Images by index. `names` holds one unique name per image, without suffix, '/' for folders.

    `has_gt`: there are clean images; `synthetic`: the rainy ones are drawn, not read from files.
    """

    names: list[str]
    has_gt: bool = True
    synthetic: bool = False
    seed: int = 0

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def read(self, index: int) -> ImagePair:
        """The decoded images. Raises DataError, with the path, for files that cannot be used."""

    def render(self, pair: ImagePair, rng: np.random.Generator) -> ImagePair:
        """What is drawn onto a cropped and flipped pair; nothing where pairs come from disk."""
        return pair

    def sample(self, index: int) -> ImagePair:
        """The whole image, the same on every call: what testing and validation look at."""
        return self.render(self.read(index), generator(SAMPLE, self.seed, index))
