"""Decoded images kept in one map that all loader workers share."""

from __future__ import annotations

import hashlib
import mmap
import os
import time
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from basicsr.io.images import image_size, read_image
from basicsr.utils.errors import DataError

CacheKind = Literal["none", "memory", "disk"]
_UNUSED_DAYS = 30


class _Place(NamedTuple):
    slot: int
    offset: int
    shape: tuple[int, int, int]


class DecodeCache:
    """Reads images, and keeps the pixels of as many as fit into `gib` GiB.

    `memory` is an anonymous map: loader workers forked from this process fill and read the same
    pages, and it is gone with the last of them. `disk` is a file in the user's cache folder, named
    after the paths, sizes and times of the images, which later runs and other ranks take up again;
    files unused for 30 days are removed.

    No lock is needed. The map begins with a word per image, the checksum of its pixels, which is
    written after them. A process compares it once, before it first gives an image out: one half
    written by a killed process, or just being written by another worker, fails and is decoded
    anew. Once right, pixels stay right, as nothing else is ever written in their place.
    """

    def __init__(self, files: Iterable[Path], kind: CacheKind, gib: float) -> None:
        self.kind = kind
        self._places: dict[Path, _Place] = {}
        if kind == "none":
            return
        known = {path: found for path in sorted(files) if (found := _look_at(path))}
        self._slots = len(known)
        self._bytes = 8 * self._slots
        for slot, (path, (shape, _)) in enumerate(known.items()):
            if self._bytes + np.prod(shape) <= gib * 2**30:
                self._places[path] = _Place(slot, self._bytes, shape)
                self._bytes += int(np.prod(shape))
        stamps = "".join(stamp for _, stamp in known.values())
        self._key = hashlib.sha256(stamps.encode()).hexdigest()[:32]
        self._open()

    def __call__(self, path: Path) -> np.ndarray:
        """The image as `read_image` gives it, not to be written to: where kept, it is no copy."""
        place = self._places.get(path)
        if place is None:
            return read_image(path)
        kept: np.ndarray = np.ndarray(place.shape, np.uint8, self._map, place.offset)
        if not self._proven[place.slot]:
            if self._stamps[place.slot] != _stamp(kept):
                image = read_image(path)
                if image.shape != place.shape:
                    return image
                kept[:] = image
                self._stamps[place.slot] = _stamp(image)
            self._proven[place.slot] = True
        kept.flags.writeable = False
        return kept

    def _open(self) -> None:
        if self.kind == "memory":
            self._map = mmap.mmap(-1, max(self._bytes, 1))
        else:
            self._map = _map_file(_cache_folder() / f"{self._key}.pixels", max(self._bytes, 1))
        self._stamps = np.frombuffer(self._map, np.uint64, self._slots)
        self._proven = np.zeros(self._slots, bool)

    def __getstate__(self) -> dict[str, Any]:
        """Without the map: a spawned worker opens the file again, or a map of its own."""
        return {
            name: value
            for name, value in vars(self).items()
            if name not in ("_map", "_stamps", "_proven")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self.kind != "none":
            self._open()


def _stamp(image: np.ndarray) -> np.uint64:
    """Never zero, which is what the word of an image that is not there yet holds."""
    return np.uint64(zlib.crc32(image.data) | 1 << 32)


def _look_at(path: Path) -> tuple[tuple[int, int, int], str] | None:
    """The image's shape, and what tells it from other images; None where it cannot be read.

    Such a file is no concern of the cache: whoever reads it is told what is wrong with it.
    """
    try:
        height, width = image_size(path)
        status = path.stat()
    except (DataError, OSError):
        return None
    stamp = f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\n"
    return (height, width, 3), stamp


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "dtpnet-derain"


def _map_file(path: Path, size: int) -> mmap.mmap:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for other in path.parent.glob("*.pixels"):
            if time.time() - other.stat().st_mtime > _UNUSED_DAYS * 86400:
                other.unlink(missing_ok=True)
        with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            _reserve(file.fileno(), path, size)
            os.utime(path)
            return mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise DataError(
            f"{path}: no room for a decode cache of {size / 2**30:.2f} GiB ({error.strerror}); "
            "lower cache_gib or set cache: none"
        ) from error


def _reserve(file: int, path: Path, size: int) -> None:
    """Take the room now: writing to a map on a full disk would kill the process."""
    os.ftruncate(file, size)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        try:
            os.posix_fallocate(file, 0, size)
        except OSError:
            path.unlink(missing_ok=True)
            raise
