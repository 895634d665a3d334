"""Text files that list the pairs, or the ground truth, of a data set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from basicsr.data.layouts.base import PairFiles, Pairing, require_different_names, stem_in
from basicsr.io.images import SUFFIXES
from basicsr.io.stored_files import in_lmdb, is_lmdb, lmdb_keys
from basicsr.utils.errors import DataError


class PairList(NamedTuple):
    """Pairs that a text file in the root lists: `LQ GT` in each line, relative to the root."""

    file: str

    def is_present(self, root: Path) -> bool:
        return (root / self.file).is_file()

    def match(self, root: Path) -> Pairing:
        return listed_pairs(root / self.file, read_list(root / self.file), root, root)

    def __str__(self) -> str:
        return f"{self.file} and the images that it names"


class ListedNames(NamedTuple):
    """Names in a line of a list: those of a pair, or `gt` is None and `first` is the only one."""

    line: int
    first: str
    gt: str | None


def read_list(file: Path) -> list[ListedNames]:
    """Read a list of images.

    A line is `LQ GT`, `NAME`, or `NAME (HEIGHT,WIDTH,CHANNELS) ...` as in BasicSR's meta_info_file;
    what follows the name is ignored. Lines that begin with # are comments.

    Raises:
        DataError: the file or a line cannot be read, or it lists nothing, or lines of both kinds.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DataError(f"{file}: is not UTF-8 text; save the list as UTF-8") from None
    listed: list[ListedNames] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not (line := line.strip()) or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line) or _BARE_LINE.fullmatch(line)
        if not found:
            raise DataError(
                f"{file}: line {number} is not LQ GT, the names of two images: '{line}'"
            )
        names = ListedNames(number, found[1], found[2])
        if listed and (names.gt is None) != (listed[0].gt is None):
            raise DataError(
                f"{file}: line {number} names {1 if names.gt is None else 2} images, others do "
                "not; write LQ GT in each line, or GT in each line"
            )
        listed.append(names)
    if not listed:
        raise DataError(f"{file}: lists no image")
    return listed


_NAME = rf"\S.*?(?:{'|'.join(re.escape(suffix) for suffix in sorted(SUFFIXES))})"
# a name, then either nothing, the rest of a line of BasicSR, or another name
_LINE = re.compile(rf"({_NAME})(?:\s+\(.*|[\s,;]+({_NAME}))?", re.IGNORECASE)
_BARE_LINE = re.compile(r"([^\s,;]+)(?:\s+\(.*|[\s,;]+([^\s,;]+))?")  # names without suffixes


def listed_pairs(
    file: Path, listed: Sequence[ListedNames], lq_folder: Path, gt_folder: Path
) -> Pairing:
    """Return the pairs of a list whose lines name two images, relative to the folders.

    Raises DataError if one of them does not exist.
    """
    pairs = []
    for line, first, second in listed:
        assert second is not None
        where = f"{file}: line {line}"
        lq, gt = _existing(lq_folder, first, where), _existing(gt_folder, second, where)
        pairs.append(PairFiles(stem_in(lq_folder, lq), lq, gt))
    require_different_names(pairs)
    return Pairing(pairs, [], [], f"LQ GT in each line of {file}")


def _existing(folder: Path, name: str, where: str) -> Path:
    """Return the file that a list names; SPANet's lists begin with '/', Windows writes '\\'."""
    if is_lmdb(folder):
        key = stem_in(folder, folder / name.lstrip("/"))
        if key in lmdb_keys(folder):
            return folder / key
    tried = [folder / name.lstrip("/"), Path(name), folder / name.replace("\\", "/").lstrip("/")]
    for path in tried:
        if not in_lmdb(path) and path.is_file():
            return path
    raise DataError(
        f"{where} names {tried[0]}, which does not exist; check the folder and the list"
    )
