"""Base class of the data sets: named images, read by index."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from basicsr.io.stored_files import file_status, in_lmdb, read_file
from basicsr.utils.errors import DataError
from basicsr.utils.files import sha256

HASHED_FILES = 64
"""Files hashed in full for a fingerprint; the rest are fingerprinted by size."""

# purposes of random generators
ORDER, PATCH, SAMPLE, MIXUP = range(4)


def generator(purpose: int, *key: int) -> np.random.Generator:
    """Return a random generator that is a function of its arguments alone."""
    return np.random.default_rng([purpose, *key])


class ImagePair(NamedTuple):
    """Degraded image and ground truth: H x W x C of uint8, uint16 or float32.

    H and W agree, C may differ. Levels of float32 are nominally in [0, 1] but not clipped. `gt` is
    None for data sets without ground truth.
    """

    lq: np.ndarray
    gt: np.ndarray | None


class OtherImageError(DataError):
    """Error of an image that `degrade` of another image needs; `name` is its name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name


class RestorationDataset(ABC):
    """Data set for training, validation or testing.

    Subclasses set `names` and the attributes that differ from the defaults here.

    Attributes:
        names: one unique name per image, without suffix, with '/' between folders.
        has_gt: whether there is ground truth.
        synthetic: whether `lq` is computed from `gt` rather than read from files.
        seed: seed of the degradation in `sample`.
        description: options that change the training data, as text for the fingerprint.
        lq_channels: channels of `lq`.
        gt_channels: channels of `gt`.
        bit_depth: bits per channel of the images as they are read.
    """

    names: list[str]
    has_gt: bool = True
    synthetic: bool = False
    seed: int = 0
    description: str = ""
    lq_channels: int = 3
    gt_channels: int = 3
    bit_depth: Literal[8, 16] = 8

    @property
    def lq_dtype(self) -> np.dtype:
        """Type of `lq` in training patches and samples."""
        return self.gt_dtype

    @property
    def gt_dtype(self) -> np.dtype:
        """Type of `gt` in training patches and samples."""
        return np.dtype(np.uint8 if self.bit_depth == 8 else np.uint16)

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def read(self, index: int) -> ImagePair:
        """Return the decoded images, which must not be written to.

        Raises DataError, with the path, for files that cannot be used.
        """

    @abstractmethod
    def files(self, index: int) -> Sequence[Path]:
        """Return the files that an image is read from."""

    def shared_files(self) -> Sequence[Path]:
        """Return further files, which `degrade` may read for any image."""
        return ()

    def degrade(self, index: int, pair: ImagePair, rng: np.random.Generator) -> ImagePair:
        """Degrade a cropped and flipped pair; pairs from disk stay as they are.

        Raises OtherImageError if it needs another image, which cannot be used. If such images are
        to be skipped, it is called again, with random numbers that go on.
        """
        return pair

    def sample(self, index: int) -> ImagePair:
        """Return the whole image for validation or testing, the same on every call.

        The arrays belong to the caller.
        """
        lq, gt = self.read(index)
        pair = ImagePair(lq.copy(), None if gt is None else gt.copy())
        return self.degrade(index, pair, generator(SAMPLE, self.seed, index))

    def check(self, examine: Callable[[str, ImagePair], None] = lambda name, pair: None) -> None:
        """Read every image, and call `examine` with its name and images.

        Raises DataError for an image that cannot be used, and what `examine` raises.
        """

        def read(index: int) -> None:
            examine(self.names[index], self.read(index))

        with ThreadPoolExecutor() as pool:
            deque(pool.map(read, range(len(self))), maxlen=0)

    def fingerprint(self) -> dict[str, int | str]:
        """Return the number of images, and a SHA-256 that changes with the training data.

        It covers the description, the images' names and order, the names and sizes of their files,
        and the contents of some files, evenly spread; not the folder or the time of writing.
        """
        digest = hashlib.sha256(self.description.encode())
        sizes: dict[Path, int] = {}
        read = [(name, path) for i, name in enumerate(self.names) for path in self.files(i)]
        for name, path in [*read, *(("", path) for path in self.shared_files())]:
            if path not in sizes:
                sizes[path] = _size(path)
            digest.update(f"\0{name}\0{path.name}\0{sizes[path]}".encode())
        paths = list(sizes)
        for position in np.linspace(0, len(paths) - 1, min(len(paths), HASHED_FILES)):
            digest.update(_hash(paths[round(position)]).encode())
        return {"images": len(self), "sha256": digest.hexdigest()}


def _size(path: Path) -> int:
    """Return the file's size, or -1 if it is missing: `read` reports that, or skips the image."""
    try:
        return file_status(path).size
    except (OSError, DataError):
        return -1


def _hash(path: Path) -> str:
    try:
        return hashlib.sha256(read_file(path)).hexdigest() if in_lmdb(path) else sha256(path)
    except (OSError, DataError):
        return "unreadable"
