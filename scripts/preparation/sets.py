"""Data sets that prepare.py knows: where their images are, how many there are, how they are cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from checking.scenes import called_like, known_scenes

from basicsr.data.layouts import match
from basicsr.data.layouts.defocus_deblurring import partners
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
    """Find the pairs of GoPro. Raises DataError if only the images named blur_gamma are there."""
    if any(root.glob("*/blur_gamma")) and not any(root.glob("*/blur")):
        raise DataError(
            f"{root}: there is only blur_gamma/, a second version of the images; networks are "
            "trained and measured on blur/: get the complete GOPRO_Large"
        )
    return find_pairs(root, "GoPro")


def find_pairs(root: Path, layout: str) -> list[Item]:
    """Find the pairs of a layout. Raises DataError if a file has no partner."""
    return [
        Item(pair.name, {"input_crops": pair.lq, "target_crops": pair.gt})
        for pair in match(root, layout).complete()
    ]


def find_dpdd(root: Path) -> list[Item]:
    """Find the shots of DPDD with their three blurred views."""
    centre, both = (match(root, layout).complete() for layout in ("DPDD", "DPDD_dual"))
    views = {pair.name: pair for pair in both}
    partner = partners([pair.name for pair in centre], list(views), root)
    items = []
    for pair in centre:
        left, right = views[partner[pair.name]].lq, views[partner[pair.name]].lq_right
        assert right is not None
        files = {"inputC": pair.lq, "inputL": left, "inputR": right, "target": pair.gt}
        items.append(Item(pair.name, {f"{view}_crops": path for view, path in files.items()}))
    return items


def find_dfwb(root: Path) -> list[Item]:
    """Find the clean images of DIV2K/, Flickr2K/, WaterlooED/ and BSD400/, subfolders included."""
    files: dict[str, Path] = {}
    for folder in filter(Path.is_dir, (root / name for name in DFWB)):
        for path in images_by_stem(folder).values():
            name = f"{folder.name}-{path.stem}"
            if name in files:
                raise DataError(f"{files[name]} and {path} have the same name; rename one")
            files[name] = path
    if not files:
        raise DataError(f"{root}: expected the folders {', '.join(DFWB)}")
    bsd = [path for name, path in files.items() if name.startswith("BSD400-")]
    if test_images := called_like(known_scenes()["BSD68"], bsd):
        names = ", ".join(each.path.name for each in test_images[:3])
        raise DataError(
            f"{root / 'BSD400'}: images of the test set BSD68 are here, {len(test_images)} in all "
            f"({names}, ...); BSD400 is the part of BSD500 without them: remove them"
        )
    return [Item(name, {"": path}) for name, path in files.items()]


DFWB = {"DIV2K": 800, "Flickr2K": 2650, "WaterlooED": 4744, "BSD400": 400}

PREPARATIONS = {
    ("GoPro", "train"): Preparation(find_gopro, 2103, Cut(512, step=256)),
    ("GoPro", "val"): Preparation(find_gopro, 1111, Cut(256)),
    ("GoPro", "test"): Preparation(find_gopro, 1111, None),
    ("HIDE", "test"): Preparation(
        partial(find_pairs, layout="HIDE"),
        2025,
        None,
        " (copies with 1079 + 942 images are incomplete downloads)",
    ),
    ("DPDD", "train"): Preparation(find_dpdd, 350, Cut(512, step=204, dropped=0.3)),
    ("DPDD", "val"): Preparation(find_dpdd, 74, Cut(256)),
    ("DPDD", "test"): Preparation(find_dpdd, 76, None),
    ("SIDD", "train"): Preparation(partial(find_pairs, layout="SIDD"), 320, Cut(512, step=384)),
    ("DFWB", "train"): Preparation(
        find_dfwb,
        DFWB,
        Cut(512, step=416, only_above=800),
        " (BSD400 is a part of BSD500, whose other images include the test set BSD68)",
    ),
}
