"""What every data set is: a row of named images that are read by their index."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from basicsr.utils.files import sha256

CONTENTS_COMPARED = 64
"""So many files are read for a fingerprint; of the others their sizes have to do."""


ORDER, PATCH, SAMPLE = range(3)


def generator(purpose: int, *key: int) -> np.random.Generator:
    """A generator that is a function of its arguments alone."""
    return np.random.default_rng([purpose, *key])


class ImagePair(NamedTuple):
    """A rainy image and, where there is one, its clean counterpart: H x W x 3 uint8 RGB."""

    lq: np.ndarray
    gt: np.ndarray | None


class RestorationDataset(ABC):
    """Images by index. `names` holds one unique name per image, without suffix, '/' for folders.

    `has_gt`: there are clean images; `synthetic`: the rainy ones are drawn, not read from files;
    `description`: what apart from names and files decides what is trained on, in words.
    """

    names: list[str]
    has_gt: bool = True
    synthetic: bool = False
    seed: int = 0
    description: str = ""

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def read(self, index: int) -> ImagePair:
        """The decoded images, not to be written to.

        Raises DataError, with the path, for files that cannot be used.
        """

    @abstractmethod
    def files(self, index: int) -> Sequence[Path]:
        """The files that an image is read from."""

    def render(self, index: int, pair: ImagePair, rng: np.random.Generator) -> ImagePair:
        """What is drawn onto a cropped and flipped pair; nothing where pairs come from disk."""
        return pair

    def sample(self, index: int) -> ImagePair:
        """The whole image, the same on every call: what testing and validation look at.

        The arrays are the caller's own.
        """
        lq, gt = self.read(index)
        pair = ImagePair(lq.copy(), None if gt is None else gt.copy())
        return self.render(index, pair, generator(SAMPLE, self.seed, index))

    def check(self) -> None:
        """Read every image. Raises DataError for the first that cannot be used."""

        def read(index: int) -> None:
            self.read(index)

        with ThreadPoolExecutor() as pool:
            deque(pool.map(read, range(len(self))), maxlen=0)

    def fingerprint(self) -> dict[str, int | str]:
        """The number of images, and a SHA-256 that changes when training on them would.

        It covers the images' names and order, the names and sizes of their files, and the contents
        of some, evenly spread; neither where the folder lies nor when it was written.
        """
        known = hashlib.sha256(self.description.encode())
        sizes: dict[Path, int] = {}
        for index, name in enumerate(self.names):
            for path in self.files(index):
                if path not in sizes:
                    sizes[path] = _size(path)
                known.update(f"\0{name}\0{path.name}\0{sizes[path]}".encode())
        paths = list(sizes)
        for place in np.linspace(0, len(paths) - 1, min(len(paths), CONTENTS_COMPARED)):
            known.update(_contents(paths[round(place)]).encode())
        return {"images": len(self), "sha256": known.hexdigest()}


def _size(path: Path) -> int:
    """-1 for a file that is not there: reading the image will tell, or skip it."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _contents(path: Path) -> str:
    try:
        return sha256(path)
    except OSError:
        return "unreadable"
