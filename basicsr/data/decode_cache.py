"""Cache of decoded images in one memory map that all loader workers share."""

from __future__ import annotations

import hashlib
import mmap
import os
import time
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple
from weakref import WeakValueDictionary

import numpy as np

from basicsr.io.images import BitDepth, Color, image_format, read_image
from basicsr.io.stored_files import file_status
from basicsr.utils.errors import DataError
from basicsr.utils.files import private_folder, require_own

CacheKind = Literal["none", "memory", "disk"]
_UNUSED_DAYS = 30
_memory_maps: WeakValueDictionary[str, mmap.mmap] = WeakValueDictionary()


class _Place(NamedTuple):
    """Position of an image in the map: the index of its checksum and the offset of its pixels."""

    slot: int
    offset: int
    shape: tuple[int, int, int]
    dtype: np.dtype


class DecodeCache:
    """Decoder of images that keeps the pixels of as many as fit into `gib` GiB.

    No lock is needed. The map begins with a word per image, the checksum of its pixels, which is
    written after them. Each process verifies it once, before it first returns an image: pixels that
    a killed process left half-written, or that another worker is just writing, fail and are decoded
    again. Verified pixels stay valid, as nothing else is ever written in their place.

    Args:
        files: the images of the data set.
        kind: "none" decodes every time. "memory" is an anonymous map: loader workers forked from
            this process, and other data sets of the same images, fill and read the same pages.
            "disk" is a file in the user's cache folder, named after the paths, sizes and times of
            the images, which later runs and other ranks share; files unused for 30 days are
            removed.
        gib: size of the map.
        color: as in `read_image`.
        bit_depth: as in `read_image`.

    Raises:
        DataError: the file of the map cannot be made, or is not safe to use.
    """

    def __init__(
        self,
        files: Iterable[Path],
        kind: CacheKind,
        gib: float,
        color: Color = "rgb",
        bit_depth: BitDepth = 8,
    ) -> None:
        self.kind, self.color, self.bit_depth = kind, color, bit_depth
        self._places: dict[Path, _Place] = {}
        if kind == "none":
            return
        key = hashlib.sha256()
        found = []
        for path in sorted(files):
            try:
                format, status = image_format(path, color, bit_depth), file_status(path)
            except (DataError, OSError):  # reported, or skipped, when the image is read
                continue
            stamp = f"{path.resolve()}\0{status.size}\0{status.changed}\n"
            key.update(stamp.encode())
            found.append((path, format))
        key.update(f"{color} {bit_depth}".encode())
        self._slots = len(found)
        self._bytes = 8 * self._slots
        for slot, (path, format) in enumerate(found):
            offset = self._bytes + self._bytes % format.dtype.itemsize  # aligned
            if offset + format.nbytes <= gib * 2**30:
                self._places[path] = _Place(slot, offset, format.shape, format.dtype)
                self._bytes = offset + format.nbytes
        self._key = key.hexdigest()[:32]
        self._open()

    def __call__(self, path: Path) -> np.ndarray:
        """Return the image as `read_image` does; it must not be written to, as it may be cached."""
        place = self._places.get(path)
        if place is None:
            return read_image(path, self.color, self.bit_depth)
        cached: np.ndarray = np.ndarray(place.shape, place.dtype, self._map, place.offset)
        if not self._verified[place.slot]:
            if self._checksums[place.slot] != _checksum(cached):
                image = read_image(path, self.color, self.bit_depth)
                if image.shape != place.shape or image.dtype != place.dtype:  # the file has changed
                    return image
                cached[:] = image
                self._checksums[place.slot] = _checksum(image)
            self._verified[place.slot] = True
        cached.flags.writeable = False
        return cached

    def _open(self) -> None:
        if self.kind == "memory":
            self._map = _map_memory(self._key, max(self._bytes, 1))
        else:
            self._map = _map_file(_cache_folder() / f"{self._key}.pixels", max(self._bytes, 1))
        self._checksums = np.frombuffer(self._map, np.uint64, self._slots)
        self._verified = np.zeros(self._slots, bool)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the map: a spawned worker opens the file again, or a map of its own."""
        return {
            name: value
            for name, value in vars(self).items()
            if name not in ("_map", "_checksums", "_verified")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self.kind != "none":
            self._open()


def _checksum(image: np.ndarray) -> np.uint64:
    """Return a checksum that is never zero, the word of an image that is not cached yet."""
    return np.uint64(zlib.crc32(image.data) | 1 << 32)


def _map_memory(key: str, size: int) -> mmap.mmap:
    """Return the map that other data sets of the same images use in this process, or a new one."""
    name = f"{key} {size}"  # `cache_gib` may leave out images
    memory = _memory_maps.get(name)
    if memory is None:
        memory = _memory_maps[name] = mmap.mmap(-1, size)
    return memory


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "dtpnet-derain"


def _map_file(path: Path, size: int) -> mmap.mmap:
    """Map a file of the cache folder, which is made if needed.

    The folder is private, and folder and file must belong to this user: whoever can write there
    decides what is trained on.
    """
    try:
        private_folder(path.parent)
        for other in path.parent.glob("*.pixels"):
            if time.time() - other.lstat().st_mtime > _UNUSED_DAYS * 86400:
                other.unlink(missing_ok=True)
        with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b") as file:
            require_own(path, os.fstat(file.fileno()))
            _reserve(file.fileno(), path, size)
            os.utime(file.fileno())
            return mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise DataError(
            f"{path}: no decode cache of {size / 2**30:.2f} GiB ({error.strerror}); "
            "lower cache_gib or set cache: none"
        ) from error


def _reserve(file: int, path: Path, size: int) -> None:
    """Allocate the disk space now: writing to a map on a full disk would kill the process."""
    os.ftruncate(file, size)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        try:
            os.posix_fallocate(file, 0, size)
        except OSError:
            path.unlink(missing_ok=True)
            raise
