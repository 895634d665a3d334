"""Layouts: where a public data set keeps its files, and which files form a pair."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from basicsr.io.images import SUFFIXES, images_by_stem
from basicsr.utils.errors import DataError
from basicsr.utils.files import expanded
from basicsr.utils.registry import suggest

Side = Literal["left", "right"]

logger = logging.getLogger("basicsr")


class PairFiles(NamedTuple):
    """Files of one pair.

    `name` is the name of the restored image. `lq_side` is set where one file holds `lq` and `gt`
    side by side. `lq_right` is the right view of a dual-view pair, whose left view is `lq`.
    """

    name: str
    lq: Path
    gt: Path
    lq_side: Side | None = None
    lq_right: Path | None = None


class Pairing(NamedTuple):
    """Pairs of a data set.

    Attributes:
        pairs: the files of each pair.
        lq_alone: degraded images without a partner, which is a fault.
        gt_alone: the same for ground truth.
        expected: the expected names, as text.
        left_out: images in no pair, which is expected.
    """

    pairs: list[PairFiles]
    lq_alone: list[Path]
    gt_alone: list[Path]
    expected: str
    left_out: Sequence[Path] = ()

    def complete(self) -> list[PairFiles]:
        """Return the pairs; log how many images are left out.

        Raises DataError if a file has no partner.
        """
        if self.lq_alone or self.gt_alone:
            raise DataError(
                f"{len(self.lq_alone)} lq images without a partner{_first_of(self.lq_alone)} and "
                f"{len(self.gt_alone)} gt images without a partner{_first_of(self.gt_alone)}; "
                f"expected {self.expected}"
            )
        if self.left_out:
            logger.warning(
                "%d images are left out, as they belong to no pair%s",
                *(len(self.left_out), _first_of(list(self.left_out))),
            )
        return self.pairs


class Form(Protocol):
    """One of the ways in which a data set is found on disk; its text describes it in errors."""

    def is_present(self, root: Path) -> bool:
        """Return whether `root` looks like this form."""

    def match(self, root: Path) -> Pairing:
        """Pair the files below `root`."""


class Folders(NamedTuple):
    r"""Degraded images and ground truth in files of their own.

    Args:
        lq_folder: folder of the degraded images, relative to the root of the data set.
        gt_folder: folder of the ground truth; may be the same folder.
        lq_pattern: regular expression of the lq files' names: relative to their folder, without
            suffix.
        gt_pattern: the same for gt files, to distinguish them from lq files in the same folder.
        gt_name: name of the gt file, as a template (`\1`) that the match of `lq_pattern` fills in.
        example: a pair of names, for errors.
        right_folder: folder of the right views, named like the left views in `lq_folder`.
        spare_gt: whether ground truth without a degraded image is left out instead of a fault.
    """

    lq_folder: str
    gt_folder: str
    lq_pattern: str = "(.+)"
    gt_pattern: str = ".+"
    gt_name: str = r"\1"
    example: str = "x.png with x.png"
    right_folder: str | None = None
    spare_gt: bool = False

    def is_present(self, root: Path) -> bool:
        folders = {self.lq_folder, self.gt_folder, self.right_folder or self.lq_folder}
        if not all((root / folder).is_dir() for folder in folders):
            return False
        if self.lq_folder != self.gt_folder:
            return True
        return any(re.fullmatch(self.lq_pattern, path.stem) for path in root.iterdir())

    def match(self, root: Path) -> Pairing:
        lq = images_by_stem(root / self.lq_folder)
        gt = images_by_stem(root / self.gt_folder)
        right = images_by_stem(root / self.right_folder) if self.right_folder else {}
        if self.lq_folder == self.gt_folder:
            lq = {stem: path for stem, path in lq.items() if re.fullmatch(self.lq_pattern, stem)}
            gt = {stem: path for stem, path in gt.items() if re.fullmatch(self.gt_pattern, stem)}
        pairs, lq_alone, used = [], [], set()
        for stem, path in lq.items():
            match = re.fullmatch(self.lq_pattern, stem)
            partner = match.expand(self.gt_name) if match else ""
            used.add(partner)
            if partner in gt and (stem in right or not self.right_folder):
                pairs.append(PairFiles(stem, path, gt[partner], lq_right=right.get(stem)))
            else:
                lq_alone.append(path)
        lq_alone += [path for stem, path in right.items() if stem not in lq]
        gt_alone = [path for stem, path in gt.items() if stem not in used]
        if self.spare_gt:
            return Pairing(pairs, lq_alone, [], self.example, gt_alone)
        return Pairing(pairs, lq_alone, gt_alone, self.example)

    def __str__(self) -> str:
        if self.lq_folder == self.gt_folder:
            return self.example
        views = f", {self.right_folder}/" if self.right_folder else ""
        return f"{self.lq_folder}/{views} and {self.gt_folder}/ ({self.example})"


class SideBySide(NamedTuple):
    """Both images of a pair as the left and right half of one file.

    The files lie in the root or in the folders that match `folders`.
    """

    lq_side: Side
    folders: str | None = None

    def is_present(self, root: Path) -> bool:
        return any(
            path.suffix.lower() in SUFFIXES or (self.folders and path.match(self.folders))
            for path in root.iterdir()
        )

    def match(self, root: Path) -> Pairing:
        files = images_by_stem(root)
        pairs = [PairFiles(stem, path, path, self.lq_side) for stem, path in files.items()]
        return Pairing(pairs, [], [], str(self))

    def __str__(self) -> str:
        return f"lq and gt side by side in one image, lq {self.lq_side}"


class Nested(NamedTuple):
    r"""Degraded images and ground truth in one tree of folders, distinguished by their names.

    Args:
        lq_pattern: regular expression of the lq files' names: relative to the root, without suffix.
        gt_pattern: the same for gt files.
        name: name of the pair, as a template (`\1`) that the match of either pattern fills in;
            files with equal names form a pair.
        example: a pair of names, for errors.
    """

    lq_pattern: str
    gt_pattern: str
    name: str
    example: str

    def is_present(self, root: Path) -> bool:
        try:
            return any(re.fullmatch(self.lq_pattern, stem) for stem in images_by_stem(root))
        except DataError:  # no image
            return False

    def match(self, root: Path) -> Pairing:
        files = images_by_stem(root)
        lq, gt = (self._by_name(files, each) for each in (self.lq_pattern, self.gt_pattern))
        return Pairing(
            [PairFiles(name, path, gt[name]) for name, path in lq.items() if name in gt],
            [path for name, path in lq.items() if name not in gt],
            [path for name, path in gt.items() if name not in lq],
            self.example,
        )

    def _by_name(self, files: Mapping[str, Path], pattern: str) -> dict[str, Path]:
        named: dict[str, Path] = {}
        for stem, path in files.items():
            if match := re.fullmatch(pattern, stem):
                name = match.expand(self.name)
                if name in named:
                    raise DataError(f"{named[name]} and {path} are both called {name}; keep one")
                named[name] = path
        return named

    def __str__(self) -> str:
        return self.example


Layout = Sequence[Form]


def match(root: str | Path, layout: str, layouts: Mapping[str, Layout]) -> Pairing:
    """Pair the files of the data set in `root` by the first form of its layout with pairs there.

    Raises DataError if the layout is unknown or none of its forms is found in the folder.
    """
    root = expanded(root)
    if layout not in layouts:
        raise DataError(
            f"no layout is called '{layout}'{suggest(layout, layouts)}; known: {', '.join(layouts)}"
        )
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; check dataroot, or put {layout} there")
    first = None
    for form in layouts[layout]:
        if form.is_present(root):
            pairing = form.match(root)
            if pairing.pairs:
                return pairing
            first = first or pairing
    if first:
        return first
    expected = "; or ".join(str(form) for form in layouts[layout])
    raise DataError(f"{root}: {layout} is laid out as {expected}; found {_inventory(root)}")


def match_folders(
    lq_folder: str | Path, gt_folder: str | Path, right_folder: str | Path | None = None
) -> Pairing:
    """Pair the files of two or three folders that have the same name, suffixes apart."""
    right = None if right_folder is None else str(right_folder)
    # relative to ".", absolute and relative folders stay as they are
    return Folders(str(lq_folder), str(gt_folder), right_folder=right).match(Path("."))


def stem_in(folder: Path, path: Path) -> str:
    """Return the path relative to `folder`, or the name of a file elsewhere, without suffix."""
    relative = path.relative_to(folder) if path.is_relative_to(folder) else Path(path.name)
    known = relative.suffix.lower() in SUFFIXES  # otherwise the dot belongs to the name
    return (relative.with_suffix("") if known else relative).as_posix()


def require_different_names(pairs: Sequence[PairFiles]) -> None:
    """Raise DataError if the restored images of two pairs would have one name."""
    named: dict[str, PairFiles] = {}
    for pair in pairs:
        if named.setdefault(pair.name, pair) is not pair:
            raise DataError(
                f"{named[pair.name].lq} and {pair.lq} would both be restored as {pair.name}; give "
                "them different names"
            )


def _first_of(paths: list[Path]) -> str:
    if not paths:
        return ""
    names = ", ".join(str(path) for path in paths[:3])
    return f" ({names}, ...)" if len(paths) > 3 else f" ({names})"


def _inventory(root: Path) -> str:
    entries = sorted(
        f"{path.name}/" if path.is_dir() else path.name
        for path in root.iterdir()
        if not path.name.startswith(".")
    )
    if not entries:
        return "nothing"
    rest = f", ... ({len(entries)} entries)" if len(entries) > 6 else ""
    return ", ".join(entries[:6]) + rest
