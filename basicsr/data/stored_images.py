"""Images of one side of a data set, which have one number of channels and one bit depth."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from basicsr.data.decode_cache import DecodeCache
from basicsr.io.images import image_format
from basicsr.utils.errors import DataError

logger = logging.getLogger("basicsr")


class StoredImages:
    """Images decoded by `decode`; their channels and type are those of the first readable file.

    Args:
        files: the files of this side of the data set.
        decode: decodes them with the `color` and `bit_depth` of the data set.

    Attributes:
        example: the file that `channels` and `dtype` are taken from.
        reduced: whether that file has 16 bits per channel and is read as 8-bit.
    """

    def __init__(self, files: Sequence[Path], decode: DecodeCache) -> None:
        self.decode = decode
        self.example = files[0]
        self.channels = 1 if decode.color == "gray" else 3
        self.dtype = np.dtype(np.uint16 if decode.bit_depth == 16 else np.uint8)
        self.reduced = False
        for path in files:
            try:
                stored = image_format(path, "as_stored", "as_stored")
            except DataError:  # reported, or skipped, when the image is read
                continue
            self.example = path
            self.channels = stored.channels if decode.color == "as_stored" else self.channels
            self.dtype = stored.dtype if decode.bit_depth == "as_stored" else self.dtype
            self.reduced = stored.dtype == np.uint16 and decode.bit_depth == 8
            return

    @property
    def bit_depth(self) -> Literal[8, 16]:
        return 8 if self.dtype == np.uint8 else 16

    def __call__(self, path: Path) -> np.ndarray:
        """Return the decoded image, which must not be written to.

        Raises DataError if the file cannot be decoded or differs from the example in channels or
        depth.
        """
        image = self.decode(path)
        if image.shape[2] != self.channels or image.dtype != self.dtype:
            raise DataError(
                f"{path}: has {_described(image.shape[2], image.dtype)}, but {self.example} has "
                f"{_described(self.channels, self.dtype)}; set color and bit_depth"
            )
        return image


def warn_of_reduced_depth(*sides: StoredImages) -> None:
    """Warn once if files with 16 bits per channel are read as 8-bit."""
    reduced = [side.example for side in sides if side.reduced]
    if reduced:
        _warn(reduced[0])


@cache  # training and validation may read the same files
def _warn(path: Path) -> None:
    logger.warning(
        "%s: has 16 bits per channel and is read as 8-bit; set bit_depth: 16 to keep them", path
    )


def _described(channels: int, dtype: np.dtype) -> str:
    return f"{channels} channel{'s' if channels > 1 else ''} of {8 * dtype.itemsize} bits"
