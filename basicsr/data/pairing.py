"""Pairs of images that a rule or a list file of the user describes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from typing_extensions import TypedDict  # pydantic needs it below Python 3.12

from basicsr.data.layouts.base import (
    PairFiles,
    Pairing,
    match_folders,
    require_different_names,
    stem_in,
)
from basicsr.data.layouts.lists import listed_pairs, read_list
from basicsr.io.images import SUFFIXES, images_by_stem, list_images
from basicsr.io.stored_files import is_lmdb, lmdb_keys
from basicsr.utils.errors import DataError, OptionsError


class PairingRule(TypedDict):
    """Names of the files of a pair, relative to their folders.

    `{word}` stands for any text and `{word:d}` for a number, whose leading zeros do not matter. The
    words of `gt` are some of those of `lq`: files with the same words form pairs, and a ground
    truth may have several degraded images. Names may end with a suffix.
    """

    lq: str
    gt: str


_MOST_STEPS = 10_000
"""Attempts to split one name into words; their number may grow exponentially with the words."""


class _TooManyWays(Exception):
    """A name can be split into words in too many ways."""


class _Word(NamedTuple):
    name: str
    is_number: bool


class _Template:
    """One side of a rule: literal texts and words in turn."""

    def __init__(self, side: str, text: str) -> None:
        self.side, self.text = side, text
        self.has_suffix = os.path.splitext(text)[1].lower() in SUFFIXES
        self.parts: list[str | _Word] = []
        for literal, name, number in re.findall(r"([^{}]+)|\{(\w*)(:d)?\}", text):
            self.parts.append(literal or _Word(name, bool(number)))
        if "".join(map(self._source, self.parts)) != text or not text:
            raise OptionsError(
                f"pairing.{side}: '{text}' is not a name with words like {{name}} or {{number:d}}"
            )
        for part, following in zip(self.parts, self.parts[1:], strict=False):
            if isinstance(part, _Word) and isinstance(following, _Word):
                raise OptionsError(f"pairing.{side}: '{text}' needs a character between two words")

    @staticmethod
    def _source(part: str | _Word) -> str:
        if isinstance(part, str):
            return part
        return f"{{{part.name}{':d' if part.is_number else ''}}}"

    @property
    def words(self) -> set[_Word]:
        return {part for part in self.parts if isinstance(part, _Word)}

    @property
    def literals(self) -> int:
        """Number of characters that are not in words."""
        return sum(len(part) for part in self.parts if isinstance(part, str))

    def readings(self, name: str) -> Iterator[dict[str, str]]:
        """Yield the ways to split `name` into words, those with longer first words first."""
        if self.has_suffix:
            stem, suffix = os.path.splitext(name)
            name = stem + suffix.lower()
        steps = iter(range(_MOST_STEPS))
        try:
            yield from _readings(self.parts, name, {}, steps)
        except _TooManyWays:
            raise OptionsError(
                f"pairing.{self.side}: '{self.text}' suits '{name}' in too many ways; use fewer "
                "words, or more text between them"
            ) from None


def _readings(
    parts: Sequence[str | _Word], text: str, values: Mapping[str, str], steps: Iterator[int]
) -> Iterator[dict[str, str]]:
    if next(steps, None) is None:
        raise _TooManyWays
    if not parts:
        if not text:
            yield dict(values)
        return
    part, rest = parts[0], parts[1:]
    if isinstance(part, str):
        if text.startswith(part):
            yield from _readings(rest, text[len(part) :], values, steps)
        return
    for end in _ends(text, rest[0] if rest else None):
        value = text[:end]
        if part.is_number:
            if not value.isdecimal():
                continue
            value = str(int(value))
        if values.get(part.name, value) == value:
            yield from _readings(rest, text[end:], {**values, part.name: value}, steps)


def _ends(text: str, following: str | _Word | None) -> Iterator[int]:
    """Yield where a word at the beginning of `text` can end, the last place first."""
    if following is None:
        yield len(text)
        return
    assert isinstance(following, str)
    end = text.rfind(following)
    while end > 0:
        yield end
        end = text.rfind(following, 0, end + len(following) - 1)


def match_rule(rule: PairingRule, lq_folder: Path, gt_folder: Path) -> Pairing:
    """Pair the files of two folders, or of one folder, as a rule says.

    Files that fit no side of the rule and ground truth without a degraded image are left out.

    Raises:
        OptionsError: the rule is not valid.
        DataError: no file fits the rule, or two fit the same side with the same words.
    """
    lq, gt = _Template("lq", rule["lq"]), _Template("gt", rule["gt"])
    if unknown := sorted(word.name for word in gt.words - lq.words):
        raise OptionsError(f"pairing.gt: '{{{unknown[0]}}}' does not occur in pairing.lq")
    lq_files, gt_files = _names(lq_folder, lq), _names(gt_folder, gt)
    if lq_folder.resolve() == gt_folder.resolve():
        _separate(lq, lq_files, gt, gt_files)

    words = sorted(word.name for word in gt.words)
    gt_by_words: dict[tuple[str, ...], Path] = {}
    for name, path in gt_files.items():
        for reading in gt.readings(name):
            key = tuple(reading[word] for word in words)
            if gt_by_words.setdefault(key, path) != path:
                raise DataError(f"{gt_by_words[key]} and {path} both fit '{gt.text}'; keep one")
    pairs: list[PairFiles] = []
    alone: list[Path] = []
    left_out: list[Path] = []
    for name, path in lq_files.items():
        readings = [tuple(reading[word] for word in words) for reading in lq.readings(name)]
        partners = [gt_by_words[key] for key in readings if key in gt_by_words]
        if partners:
            pairs.append(PairFiles(stem_in(lq_folder, path), path, partners[0]))
        else:
            (alone if readings else left_out).append(path)
    if not pairs:
        raise DataError(
            f"pairing: no pair fits '{lq.text}' and '{gt.text}'; {lq_folder} has "
            f"{_examples(lq_files)}, {gt_folder} has {_examples(gt_files)}"
        )
    require_different_names(pairs)
    used = {pair.gt for pair in pairs}
    left_out += [path for path in gt_files.values() if path not in used and path not in alone]
    return Pairing(pairs, alone, [], f"'{lq.text}' with '{gt.text}'", left_out)


def _names(folder: Path, template: _Template) -> dict[str, Path]:
    """Return the images of a folder by their names relative to it, as the template writes them."""
    if is_lmdb(folder):
        return {key: folder / key for key in lmdb_keys(folder)}
    if not template.has_suffix:
        return images_by_stem(folder)
    return {path.relative_to(folder).as_posix(): path for path in list_images(folder)}


def _separate(
    lq: _Template, lq_files: dict[str, Path], gt: _Template, gt_files: dict[str, Path]
) -> None:
    """Remove from each side the files of the other side.

    A file that fits both templates belongs to the one with more literal text.
    """

    def fitting(template: _Template, files: Mapping[str, Path]) -> set[Path]:
        return {path for name, path in files.items() if any(template.readings(name))}

    of_lq, of_gt = fitting(lq, lq_files), fitting(gt, gt_files)
    both = of_lq & of_gt
    if lq.literals >= gt.literals:
        of_gt -= both
    else:
        of_lq -= both
    for files, others in ((lq_files, of_gt), (gt_files, of_lq)):
        for name in [name for name, path in files.items() if path in others]:
            del files[name]


def match_list(
    file: Path, lq_folder: Path, gt_folder: Path, rule: PairingRule | None = None
) -> Pairing:
    """Pair the files that a text file lists; see `read_list`.

    If it lists ground truth only, the degraded images are those that `rule` pairs with it, or those
    of the same name.

    Raises:
        DataError: the list cannot be read, or an image or a pair that it names does not exist.
    """
    listed = read_list(file)
    if listed[0].gt is not None:
        return listed_pairs(file, listed, lq_folder, gt_folder)
    found = match_rule(rule, lq_folder, gt_folder) if rule else match_folders(lq_folder, gt_folder)
    pairs: dict[str, list[PairFiles]] = {}
    for pair in found.pairs:
        pairs.setdefault(stem_in(gt_folder, pair.gt), []).append(pair)
    stems = [stem_in(gt_folder, gt_folder / names.first.lstrip("/")) for names in listed]
    for names, stem in zip(listed, stems, strict=True):
        if stem not in pairs:
            raise DataError(
                f"{file}: line {names.line} names {names.first}, but {gt_folder} and {lq_folder} "
                f"have no such pair; expected {found.expected}"
            )
    chosen = [pair for stem in dict.fromkeys(stems) for pair in pairs[stem]]
    return Pairing(chosen, [], [], str(file))


def _examples(files: Mapping[str, Path]) -> str:
    names = list(files)[:3]
    return f"{', '.join(names)}{', ...' if len(files) > 3 else ''}" if names else "no other image"


def guessed_rule(lq_folder: Path, gt_folder: Path) -> PairingRule | None:
    """Return the rule that a common prefix and suffix of the names on each side suggest."""
    sides = [list(images_by_stem(folder)) for folder in (lq_folder, gt_folder)]
    frames = [_frame(stems) for stems in sides]
    words = [
        {stem[len(start) : len(stem) - len(end)] for stem in stems}
        for stems, (start, end) in zip(sides, frames, strict=True)
    ]
    if not words[0] & words[1]:
        return None
    lq, gt = (f"{start}{{name}}{end}" for start, end in frames)
    return {"lq": lq, "gt": gt}


def _frame(stems: Sequence[str]) -> tuple[str, str]:
    """Return the common prefix and suffix of all stems, without digits next to what varies."""
    start = re.sub(r"\d+$", "", _common_start(stems))
    rest = [stem[len(start) :][::-1] for stem in stems]
    return start, re.sub(r"\d+$", "", _common_start(rest))[::-1]


def _common_start(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    length = next((n for n, c in enumerate(first) if last[n] != c), len(first))
    return first[:length]
