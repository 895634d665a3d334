"""Data sets that prepare.py knows: where their images are, how many there are, how they are cut."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from basicsr.data.layouts import Folders
from basicsr.io.images import images_by_stem
from basicsr.utils.errors import DataError
from preparation.cutting import Cut, Item


class Preparation(NamedTuple):
    """Preparation of one part of a data set.

    Attributes:
        find: finds the items below a folder.
        published: number of images (pairs, shots) that the authors report; with several folders,
            of each folder.
        cut: how images are cut; None for test sets, which are used whole.
        hint: what is known about incomplete copies.
    """

    find: Callable[[Path], list[Item]]
    published: int | dict[str, int]
    cut: Cut | None
    hint: str = ""

    @property
    def total(self) -> int:
        """Published number of images in all."""
        return self.published if isinstance(self.published, int) else sum(self.published.values())

    def require_complete(self, source: Path, items: list[Item]) -> None:
        """Raise DataError unless there are as many items as published."""
        found: dict[str, int] = Counter(item.name.partition("-")[0] for item in items)
        published = self.published
        if isinstance(published, int):
            found, published = {"": len(items)}, {"": published}
        for folder, count in published.items():
            if found.get(folder, 0) != count:
                raise DataError(
                    f"{source / folder}: {found.get(folder, 0)} images instead of {count}"
                    f"{self.hint}; complete the data set, or add --partial"
                )


def find_gopro(root: Path) -> list[Item]:
    """Find the pairs of GoPro: SEQUENCE/{blur,sharp}/*.png as distributed, or input/, target/."""
    if (root / "input").is_dir():
        return _pairs(Folders("input", "target"), root)
    if not any(root.glob("*/blur")):
        if any(root.glob("*/blur_gamma")):
            raise DataError(
                f"{root}: there is only blur_gamma/; networks are trained and measured on blur/, "
                "whose frames were averaged in linear light: get the complete GOPRO_Large"
            )
        raise DataError(
            f"{root}: expected SEQUENCE/blur/ and SEQUENCE/sharp/ (GOPRO_Large), or input/ and "
            "target/"
        )
    form = Folders(
        ".",
        ".",
        r"([^/]+)/blur/([^/]+)",
        r"[^/]+/sharp/[^/]+",
        r"\1/sharp/\2",
        "SEQUENCE/blur/000001.png with SEQUENCE/sharp/000001.png",
    )
    return _pairs(form, root, lambda name: name.replace("/blur/", "-"))


def find_hide(root: Path) -> list[Item]:
    """Find the pairs of HIDE in input/ and target/."""
    return _pairs(Folders("input", "target"), root)


def find_sidd(root: Path) -> list[Item]:
    """Find the pairs of SIDD: SCENE/*NOISY*.PNG and SCENE/*GT*.PNG."""
    form = Folders(
        ".",
        ".",
        r"(.*/)?([^/]*)NOISY([^/]*)",
        r"(.*/)?[^/]*GT[^/]*",
        r"\1\2GT\3",
        "0001_NOISY_SRGB_010.PNG with 0001_GT_SRGB_010.PNG",
    )
    return _pairs(form, root, lambda name: name.rpartition("/")[2])


def find_dpdd(root: Path, part: str) -> list[Item]:
    """Find the shots of DPDD: PART_{c,l,r}/source/ and PART_c/target/ as distributed, or inputC/,
    inputL/, inputR/ and target/.

    Distributed files of one shot have neighbouring numbers in source/ and target/, not equal ones.
    """
    views = {f"input{view.upper()}": root / f"{part}_{view}" / "source" for view in "clr"}
    views["target"] = root / f"{part}_c" / "target"
    if (root / "inputC").is_dir():
        views = {view: root / view for view in views}
    for folder in views.values():
        if not folder.is_dir():
            raise DataError(
                f"{folder}: no such folder; expected {part}_c/source/, {part}_c/target/, "
                f"{part}_l/source/ and {part}_r/source/ (dd_dp_dataset_canon), or inputC/, "
                "inputL/, inputR/ and target/"
            )
    files = {view: images_by_stem(folder) for view, folder in views.items()}
    shots = list(files["inputC"])
    partners = {view: _partners(shots, list(found), views[view]) for view, found in files.items()}
    return [
        Item(shot, {f"{view}_crops": files[view][partners[view][shot]] for view in files})
        for shot in shots
    ]


def find_dfwb(root: Path) -> list[Item]:
    """Find the clean images of DIV2K/, Flickr2K/, WaterlooED/ and BSD400/, subfolders included."""
    items = [
        Item(f"{folder}-{path.stem}", {"": path})
        for folder in DFWB
        if (root / folder).is_dir()
        for path in images_by_stem(root / folder).values()
    ]
    if not items:
        raise DataError(f"{root}: expected the folders {', '.join(DFWB)}")
    return _unique(items)


def _pairs(form: Folders, root: Path, rename: Callable[[str], str] = str) -> list[Item]:
    """Return the pairs of a form. Raises DataError if there is none or a file has no partner."""
    pairs = form.match(root).complete()
    if not pairs:
        raise DataError(f"{root}: no pair such as {form.example}")
    return _unique(
        Item(rename(pair.name), {"input_crops": pair.lq, "target_crops": pair.gt}) for pair in pairs
    )


def _unique(items: Iterable[Item]) -> list[Item]:
    """Return the items. Raises DataError for two that would be written under one name."""
    known: dict[str, Item] = {}
    for item in items:
        if item.name in known:
            one, other = (next(iter(i.views.values())) for i in (known[item.name], item))
            raise DataError(f"{one} and {other} have the same name; rename one")
        known[item.name] = item
    return list(known.values())


def _partners(shots: list[str], others: list[str], folder: Path) -> dict[str, str]:
    """Map shots to the files of another view: by equal names, else by order.

    Raises DataError unless the numbers at the same place differ by two at most.
    """
    if set(shots) == set(others):
        return {shot: shot for shot in shots}
    if len(shots) != len(others):
        raise DataError(f"{folder}: {len(others)} images for {len(shots)} shots")
    for shot, other in zip(shots, others, strict=True):
        numbers = [
            int(digits[-1]) for name in (shot, other) if (digits := re.findall(r"\d+", name))
        ]
        if len(numbers) != 2 or abs(numbers[0] - numbers[1]) > 2:
            raise DataError(
                f"{folder}: {other} stands where the partner of {shot} should; an image is missing "
                "or too much"
            )
    return dict(zip(shots, others, strict=True))


DFWB = {"DIV2K": 800, "Flickr2K": 2650, "WaterlooED": 4744, "BSD400": 400}

PREPARATIONS = {
    ("GoPro", "train"): Preparation(find_gopro, 2103, Cut(512, step=256)),
    ("GoPro", "val"): Preparation(find_gopro, 1111, Cut(256)),
    ("GoPro", "test"): Preparation(find_gopro, 1111, None),
    ("HIDE", "test"): Preparation(
        find_hide, 2025, None, " (copies with 1079 + 942 images are incomplete downloads)"
    ),
    ("DPDD", "train"): Preparation(
        partial(find_dpdd, part="train"), 350, Cut(512, step=204, dropped=0.3)
    ),
    ("DPDD", "val"): Preparation(partial(find_dpdd, part="val"), 74, Cut(256)),
    ("DPDD", "test"): Preparation(partial(find_dpdd, part="test"), 76, None),
    ("SIDD", "train"): Preparation(find_sidd, 320, Cut(512, step=384)),
    ("DFWB", "train"): Preparation(
        find_dfwb,
        DFWB,
        Cut(512, step=416, only_above=800),
        " (of BSD500, take the 400 images of BSD400: the rest has the test set BSD68 in it)",
    ),
}
