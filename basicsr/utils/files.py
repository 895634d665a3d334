"""Atomic file writes, names that are safe as paths, private folders and file hashes.

Folders may be shared with people who are not trusted: no function here follows a symbolic link that
somebody else could have placed under the name of a file to be written.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from basicsr.utils.errors import DataError, OptionsError

LONGEST_NAME = 255
"""Bytes of the longest file name of the usual file systems."""


def expanded(path: str | Path) -> Path:
    """Return `path` with `~` and environment variables replaced, also in values of these.

    A path that exists as it is written stays as it is. Raises OptionsError for an unset variable or
    an empty text.
    """
    text = str(path)
    if not text:
        raise OptionsError("an empty path; write . for the current folder")
    if "$" in text and not os.path.exists(text):
        text = os.path.expandvars(text)
        if unset := re.search(r"\$\{?(\w+)", text):
            raise OptionsError(
                f"{path}: the environment variable {unset[1]} is not set; set it, or write the "
                "whole path"
            )
    return Path(os.path.expanduser(text))


@contextmanager
def atomic_write(path: Path, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary binary file that replaces `path` once it is completely written.

    If writing fails or is interrupted, an existing file at `path` stays as it was. With `sync`, the
    new file survives a power failure, which takes longer.
    """
    with temporary_beside(path) as (temporary, file):
        yield file
        file.flush()
        if sync:
            os.fsync(file.fileno())
        if not _is_same(file, temporary):
            raise OSError(errno.EEXIST, "another process writes it as well; stop one", str(path))
        try:
            temporary.replace(path)
            if sync:
                _sync_folder(path.parent)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def temporary_beside(path: Path, suffix: str = ".part") -> Iterator[tuple[Path, BinaryIO]]:
    """Create a new file beside `path`, which is removed at the end if it still has its name.

    Its name is that of `path` with a dot in front and `suffix` behind. A file or link of that name,
    left by a killed process or placed by somebody, is removed; a link is not followed. Errors of
    writing name `path`.
    """
    temporary = path.with_name(hidden_name(path.name, suffix))
    try:
        with _new_file(temporary) as file:
            try:
                yield temporary, file
            finally:
                if _is_same(file, temporary):
                    temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def hidden_name(name: str, suffix: str) -> str:
    """Return `.NAME` plus `suffix`; with a hash in place of a name that would become too long."""
    hidden = f".{name}{suffix}"
    if len(os.fsencode(hidden)) <= LONGEST_NAME:
        return hidden
    return f".{_short_hash(name)}{suffix}"


def extended_name(name: str, suffix: str) -> str:
    """Return `name` plus `suffix`; a name that would become too long is cut and gets a hash."""
    if len(os.fsencode(name + suffix)) <= LONGEST_NAME:
        return name + suffix
    ending = f"~{_short_hash(name)}{suffix}"
    kept = os.fsencode(name)[: LONGEST_NAME - len(os.fsencode(ending))]
    return kept.decode(errors="ignore") + ending


def safe_name(name: str) -> str:
    """Return `name` if it can name a file in any folder, without leaving that folder.

    Raises ValueError for names that are empty, begin with a dot, hold a separator or a control
    character, or are too long. Every name from an option file that becomes a path is checked here.
    """
    if not name.strip():
        raise ValueError("expected a name, not an empty text")
    if name.startswith(".") or any(each in "/\\" or not each.isprintable() for each in name):
        raise ValueError(
            f"{name!r} becomes a file name, which must not begin with a dot, or hold a slash, a "
            "backslash or an invisible character"
        )
    if len(name.encode(errors="replace")) > 200:
        raise ValueError(f"a name of {len(name)} characters is too long for a file; shorten it")
    return name


def private_folder(folder: Path) -> Path:
    """Make `folder`, into which nobody else may write, and return it.

    An own folder that others may enter is closed to them (mode 0700).

    Raises DataError if the folder, or a link in its place, belongs to another user.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    for status in (folder.lstat(), folder.stat()):
        require_own(folder, status)
    if stat.S_IMODE(status.st_mode) != 0o700:  # an earlier version's, or an unusual umask
        folder.chmod(0o700)
    return folder


def cache_folder() -> Path:
    """Return this project's folder in the user's cache, into which nobody else may write."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return private_folder(Path(base) / "dtpnet-derain")


def is_own(file: Path) -> bool:
    """Return whether a file of the cache exists and only this user can have written it.

    The folder may have been open to others before it was made private.
    """
    try:
        status = file.lstat()
    except FileNotFoundError:
        return False
    others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not others_write


def require_own(path: Path, status: os.stat_result) -> None:
    """Raise DataError if the file or folder of the cache belongs to another user."""
    if status.st_uid != os.geteuid():
        raise DataError(
            f"{path}: belongs to another user; set XDG_CACHE_HOME to a folder of your own"
        )


def open_own(path: Path) -> BinaryIO:
    """Open a file of a shared folder to read and append, making it if needed.

    Raises OSError for a link, a pipe or another thing that is no file.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        reason = {
            errno.ELOOP: "is a link, which is not followed; remove it",
            errno.EISDIR: "is a folder; remove it",
        }.get(error.errno or 0, error.strerror)
        raise OSError(error.errno, reason, str(path)) from error
    file = open(descriptor, "r+b", buffering=0)  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EEXIST, "not a file; remove it", str(path))
    return file


def mistaken_content(start: bytes) -> str | None:
    """Return what is in place of a wanted file, and what to do; None if that is not recognized.

    Args:
        start: the first bytes of the file.
    """
    if not start:
        return "an empty file, perhaps of a download that failed; get it again"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, and not the file itself; get it with: git lfs pull"
    if re.match(rb"\s*<(!doctype html|html|\?xml)", start, re.IGNORECASE):
        return "a web page that was saved in place of the file; download the file itself"
    if start.startswith((b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ")):
        return "a compressed archive; unpack it, and use the files in it"
    return None


def sha256(path: Path) -> str:
    """Return the file's SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _new_file(path: Path) -> BinaryIO:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except FileExistsError:
        try:
            path.unlink()
        except IsADirectoryError:
            reason = f"cannot be written, as the folder {path.name} is beside it; remove that"
            raise OSError(errno.EISDIR, reason) from None
        descriptor = os.open(path, flags, 0o666)
    return open(descriptor, "w+b")


def _is_same(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(path))
    except OSError:
        return False


def _short_hash(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def _sync_folder(folder: Path) -> None:
    """Flush the folder's entries to disk, so that the new name survives a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
