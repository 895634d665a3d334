"""Encoded images in files or in an LMDB, which has the layout of BasicSR and is only read.

An image in an LMDB has the path FOLDER.lmdb/KEY. The folder holds `data.mdb` and `meta_info.txt`,
whose lines begin with the name of an image; the key is the name without suffix.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from basicsr.utils.errors import DataError

SUFFIX = ".lmdb"

_environments: dict[Path, Any] = {}
_opening = threading.Lock()


class FileStatus(NamedTuple):
    """Size in bytes, and time of the last change in nanoseconds."""

    size: int
    changed: int


def is_lmdb(folder: Path) -> bool:
    """Return whether the name of a folder is that of an LMDB."""
    return folder.suffix.lower() == SUFFIX


def read_file(path: str | Path, length: int = -1) -> bytes:
    """Return the first `length` bytes of a file or of an image in an LMDB; all if negative.

    Raises OSError for files, DataError for an LMDB.
    """
    if place := _place(path):
        content = _value(*place)
        return content if length < 0 else content[:length]
    with open(path, "rb") as file:
        return file.read(length)


def file_status(path: Path) -> FileStatus:
    """Return the status of a file or of an image in an LMDB; raises as `read_file` does."""
    if place := _place(path):
        return FileStatus(len(_value(*place)), _data_file(place[0]).stat().st_mtime_ns)
    status = path.stat()
    return FileStatus(status.st_size, status.st_mtime_ns)


def in_lmdb(path: str | Path) -> bool:
    """Return whether `path` is that of an image in an LMDB."""
    return _place(path) is not None


def lmdb_keys(folder: Path) -> list[str]:
    """Return the keys that `meta_info.txt` lists; without this file, all keys.

    Raises DataError if the LMDB cannot be read or lacks a listed image.
    """
    list_file = folder / "meta_info.txt"
    with _transaction(folder) as transaction:
        if not list_file.is_file():
            keys = transaction.cursor().iternext(values=False)
            return [key.decode(errors="replace") for key in keys]
        try:
            lines = list_file.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            raise DataError(f"{list_file}: is not UTF-8 text; save it as UTF-8") from None
        # NAME.png (HEIGHT,WIDTH,CHANNELS) COMPRESSION
        names = [line.split(" (")[0].strip() for line in lines if line.strip()]
        keys = [os.path.splitext(name)[0] for name in names]
        if not keys:
            raise DataError(f"{list_file}: lists no image; copy or make the LMDB again")
        for key in keys:
            if transaction.get(key.encode()) is None:
                raise DataError(
                    f"{folder}: has no image '{key}', which {list_file.name} lists; copy or make "
                    "the LMDB again"
                )
    return keys


def _place(path: str | Path) -> tuple[Path, str] | None:
    """Split FOLDER.lmdb/KEY; None for the path of a file."""
    if SUFFIX not in str(path).lower():
        return None
    path = Path(path)
    for parent in path.parents:
        if is_lmdb(parent):
            return parent, path.relative_to(parent).as_posix()
    return None


def _value(folder: Path, key: str) -> bytes:
    with _transaction(folder) as transaction:
        value = transaction.get(key.encode())
    if value is None:
        raise DataError(f"{folder}/{key}: no such image in this LMDB")
    return value


@contextmanager
def _transaction(folder: Path) -> Iterator[Any]:
    """Begin to read the LMDB in `folder`, which is opened once in each process."""
    try:
        import lmdb
    except ImportError:
        raise DataError(f"{folder}: LMDB needs the package lmdb; pip install lmdb") from None
    try:
        with _opening:
            key = folder.resolve()
            if key not in _environments:
                _environments[key] = _open(folder)
            environment = _environments[key]
        with environment.begin() as transaction:
            yield transaction
    except lmdb.Error as error:
        message = str(error).removeprefix(f"{folder}: ")
        raise DataError(f"{folder}: cannot be read as an LMDB ({message}); copy it again") from None


def _open(folder: Path) -> Any:
    import lmdb

    data = _data_file(folder)
    if not data.is_file():
        raise DataError(f"{folder}: is not an LMDB ({data.name} is missing); check the path")
    # without locks it can lie on a read-only disk; nothing here writes to it
    environment = lmdb.open(
        str(folder), subdir=data != folder, readonly=True, lock=False, readahead=False
    )
    complete = environment.stat()["psize"] * (environment.info()["last_pgno"] + 1)
    if data.stat().st_size < complete:  # reading behind the end would kill the process
        environment.close()
        raise DataError(
            f"{data}: is cut off ({data.stat().st_size} of {complete} bytes); copy it again"
        )
    return environment


def _close_inherited() -> None:
    """Close the LMDBs of the parent process in a forked worker, which must open them itself."""
    global _opening
    _opening = threading.Lock()  # a thread of the parent may have held it
    for environment in _environments.values():
        environment.close()
    _environments.clear()


os.register_at_fork(after_in_child=_close_inherited)


def _data_file(folder: Path) -> Path:
    """Return the file with the data: `folder` itself if it is not a folder."""
    return folder if folder.is_file() else folder / "data.mdb"
