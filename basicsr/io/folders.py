"""List the images below a folder, through links to folders, and everything else that is there."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from basicsr.io.opening import SUFFIXES
from basicsr.io.stored_files import is_lmdb, lmdb_keys
from basicsr.utils.errors import DataError


class Listing(NamedTuple):
    """Content of a folder and its subfolders.

    Args:
        files: files with the suffixes that were asked for, in natural order.
        others: other files, and hidden ones with those suffixes.
        repeated: links to folders that are listed already.
        problems: one line for each folder or file that cannot be used.
    """

    files: list[Path]
    others: list[Path]
    repeated: list[Path]
    problems: list[str]


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts 'image-9' before 'image-10'."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]


def list_folder(folder: str | Path, suffixes: Collection[str] = SUFFIXES) -> Listing:
    """List the files below `folder`.

    Hidden folders are left out. Links to folders are followed after all other folders; each folder
    is listed once, so that links in a circle end.
    """
    listing = Listing([], [], [], [])
    waiting, links = deque([str(folder)]), deque[str]()
    listed: set[tuple[int, int]] = set()
    while waiting or links:
        is_link = not waiting
        parent = links.popleft() if is_link else waiting.popleft()
        try:
            status = os.stat(parent)
            if (status.st_dev, status.st_ino) in listed:
                listing.repeated.append(Path(parent))
                continue
            listed.add((status.st_dev, status.st_ino))
            for entry in _sorted_entries(parent):
                _sort_in(entry, suffixes, listing, waiting, links)
        except OSError as error:
            listing.problems.append(f"{parent}: cannot be listed ({error.strerror})")
    listing.files.sort(key=lambda path: natural_key(str(path)))
    return listing


def list_images(folder: str | Path, suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """List the files below `folder` with such suffixes, in natural order.

    Subfolders and links to folders are included; hidden files and folders are not. Raises DataError
    if the folder is missing, cannot be listed or holds no image, or if a name is not text.
    """
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: no such folder; check the path, or put the data set there")
    listing = list_folder(folder, suffixes)
    if listing.problems:
        raise DataError(listing.problems[0])
    if not listing.files:
        raise DataError(f"{folder}: no images in this folder ({', '.join(sorted(suffixes))})")
    return listing.files


def images_by_stem(folder: Path) -> dict[str, Path]:
    """Map the paths relative to `folder`, without suffix, to the files that `list_images` finds.

    Of an LMDB, it maps the keys. Raises DataError for files that differ in their suffix only.
    """
    if is_lmdb(folder):
        return {key: folder / key for key in sorted(lmdb_keys(folder), key=natural_key)}
    files: dict[str, Path] = {}
    for path in list_images(folder):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in files:
            raise DataError(f"{files[stem]} and {path} differ in their suffix only; keep one")
        files[stem] = path
    return files


def _sorted_entries(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from sorted(entries, key=lambda entry: entry.name)


def _sort_in(
    entry: os.DirEntry[str],
    suffixes: Collection[str],
    listing: Listing,
    folders: deque[str],
    links: deque[str],
) -> None:
    hidden = entry.name.startswith(".")
    if os.path.isdir(entry.path):
        if not hidden:
            (links if entry.is_symlink() else folders).append(entry.path)
    elif not _is_text(entry.path):
        listing.problems.append(
            f"{entry.path!a}: this file name is not UTF-8 text; rename the file"
        )
    elif os.path.splitext(entry.name)[1].lower() not in suffixes:
        if not hidden:
            listing.others.append(Path(entry.path))
    else:
        (listing.others if hidden else listing.files).append(Path(entry.path))


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
