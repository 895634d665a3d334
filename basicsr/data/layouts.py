"""Where each public data set keeps its pairs, and how a rainy image finds its clean one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from basicsr.io.images import SUFFIXES, images_by_stem
from basicsr.utils.errors import DataError
from basicsr.utils.registry import suggest

Side = Literal["left", "right"]


class PairFiles(NamedTuple):
    """The files of one pair, and the name that what is restored from it gets."""

    name: str
    rainy: Path
    clean: Path
    rainy_side: Side | None = None  # where one file holds both images side by side


class Pairing(NamedTuple):
    """Which files belong together, and which are left over."""

    pairs: list[PairFiles]
    rainy_alone: list[Path]
    clean_alone: list[Path]
    expected: str

    def complete(self) -> list[PairFiles]:
        """The pairs. Raises DataError where files are left over."""
        if self.rainy_alone or self.clean_alone:
            raise DataError(
                f"{len(self.rainy_alone)} rainy images without a clean one"
                f"{_first_of(self.rainy_alone)} and {len(self.clean_alone)} clean images without "
                f"a rainy one{_first_of(self.clean_alone)}; expected {self.expected}"
            )
        return self.pairs


class Folders(NamedTuple):
    """Rainy and clean images in files of their own.

    `rainy` and `clean` are regular expressions on file names without suffix, relative to their
    folder; where both match, the `clean_name` that the rainy name expands to is the clean image's.
    """

    rainy_folder: str
    clean_folder: str
    rainy: str = "(.+)"
    clean: str = ".+"
    clean_name: str = r"\1"
    example: str = "x.png with x.png"

    def is_there(self, root: Path) -> bool:
        folders_exist = (root / self.rainy_folder).is_dir() and (root / self.clean_folder).is_dir()
        if self.rainy_folder != self.clean_folder or not folders_exist:
            return folders_exist
        return any(re.fullmatch(self.rainy, path.stem) for path in root.iterdir())

    def match(self, root: Path) -> Pairing:
        rainy = images_by_stem(root / self.rainy_folder)
        clean = images_by_stem(root / self.clean_folder)
        if self.rainy_folder == self.clean_folder:
            rainy = {stem: path for stem, path in rainy.items() if re.fullmatch(self.rainy, stem)}
            clean = {stem: path for stem, path in clean.items() if re.fullmatch(self.clean, stem)}
        matches = {stem: re.fullmatch(self.rainy, stem) for stem in rainy}
        partner = {stem: match.expand(self.clean_name) for stem, match in matches.items() if match}
        used = set(partner.values())
        return Pairing(
            [
                PairFiles(s, path, clean[partner[s]])
                for s, path in rainy.items()
                if partner.get(s) in clean
            ],
            [path for stem, path in rainy.items() if partner.get(stem) not in clean],
            [path for stem, path in clean.items() if stem not in used],
            self.example,
        )

    def __str__(self) -> str:
        if self.rainy_folder == self.clean_folder:
            return self.example
        return f"{self.rainy_folder}/ and {self.clean_folder}/ ({self.example})"


class SideBySide(NamedTuple):
    """Rainy and clean image as the two halves of one file, in the folder itself or in Rain_*/."""

    rainy_side: Side

    def is_there(self, root: Path) -> bool:
        return any(
            path.suffix.lower() in SUFFIXES or path.match("Rain_*") for path in root.iterdir()
        )

    def match(self, root: Path) -> Pairing:
        files = images_by_stem(root)
        pairs = [PairFiles(stem, path, path, self.rainy_side) for stem, path in files.items()]
        return Pairing(pairs, [], [], str(self))

    def __str__(self) -> str:
        return f"images with rainy and clean side by side, the rainy one {self.rainy_side}"


Layout = Sequence[Folders | SideBySide]

_COPY = Folders("input", "target")  # as Restormer and MPRNet repacked most sets
_RAIN_NORAIN = Folders("rain", "norain")
_NUMBERED = (r"rain-(\d+)", r"norain-\d+", r"norain-\1", "rain-001.png with norain-001.png")
_RAIN100 = (Folders("rainy", "norain", *_NUMBERED), Folders(".", ".", *_NUMBERED), _COPY)
_RAIN200 = (
    Folders(
        "rain", "norain", r"(?:X2/)?(norain-\d+)x2", example="norain-1x2.png with norain-1.png"
    ),
    _COPY,
)
_RAIN800 = (_COPY, Folders("rain", "norain", *_NUMBERED), SideBySide("right"))
_DID_MDN = (_COPY, SideBySide("left"))
_FOURTEEN = Folders(
    "rainy_image", "ground_truth", r"(.+)_\d+", example="901_1.jpg to 901_14.jpg with 901.jpg"
)
_RAIN1400 = (_FOURTEEN, _FOURTEEN._replace(rainy_folder="rain", clean_folder="norain"), _COPY)
_RAINDROP = tuple(
    Folders(rainy, clean, "(.+)_rain", ".+", r"\1_clean", "0_rain.png with 0_clean.png")
    for rainy, clean in (("data", "gt"), ("rain_image", "clean_image"))
)
_KITTI = Folders(
    "image_2_3_rain50",
    "image_2",
    r"(\d+_\d+)_rain_(\d)_50",
    ".+",
    r"\1_norain_\2",
    "000000_00_rain_2_50.jpg with 000000_00_norain_2.png",
)

LAYOUTS: Mapping[str, Layout] = {
    "Rain100L": _RAIN100,
    "Rain100H": _RAIN100,
    "RainTrainL": (_RAIN_NORAIN, _COPY),
    "RainTrainH": (_RAIN_NORAIN, _COPY),
    "Rain200L": _RAIN200,
    "Rain200H": _RAIN200,
    "Rain12": (
        Folders(".", ".", r"(\d+)_in", r"\d+_GT", r"\1_GT", "001_in.png with 001_GT.png"),
        *_RAIN100,
    ),
    "Rain800": _RAIN800,
    "Test100": _RAIN800,
    "DID-MDN": _DID_MDN,
    "Test1200": _DID_MDN,
    "DID-Data": (
        Folders("input", "GT", "(.+)[HL]", example="xH.jpg and xL.jpg with x.jpg"),
        _RAIN_NORAIN,
    ),
    "Rain1400": _RAIN1400,
    "DDN": _RAIN1400,
    "Test2800": _RAIN1400,
    "Rain13K": (_COPY,),
    "SPA-Data": (
        _RAIN_NORAIN,
        Folders("rain", "gt", clean_name=r"\1gt", example="000.png with 000gt.png"),
        _COPY,
    ),
    "RainDrop": _RAINDROP,
    "RainKITTI2015": (_KITTI, _KITTI._replace(clean_folder="image_2_3_norain")),
}


def match(root: str | Path, layout: str) -> Pairing:
    """Pair the files of the data set in `root`.

    Raises DataError where the layout is unknown, or the folder is laid out in none of its forms.
    """
    root = Path(root)
    if layout not in LAYOUTS:
        raise DataError(
            f"no layout is called '{layout}'{suggest(layout, LAYOUTS)}; known: {', '.join(LAYOUTS)}"
        )
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; check dataroot, or put {layout} there")
    for form in LAYOUTS[layout]:
        if form.is_there(root):
            return form.match(root)
    expected = "; or ".join(str(form) for form in LAYOUTS[layout])
    raise DataError(f"{root}: {layout} is laid out as {expected}; here is {_inventory(root)}")


def match_folders(rainy_folder: str | Path, clean_folder: str | Path) -> Pairing:
    """Pair the files of two folders that have the same name, suffixes apart."""
    # joined to ".", an absolute or relative folder stays what it is
    return Folders(str(rainy_folder), str(clean_folder)).match(Path("."))


def _first_of(paths: list[Path]) -> str:
    names = ", ".join(str(path) for path in paths[:3])
    return f" ({names}{', ...' if len(paths) > 3 else ''})" if paths else ""


def _inventory(root: Path) -> str:
    entries = sorted(
        f"{path.name}/" if path.is_dir() else path.name
        for path in root.iterdir()
        if not path.name.startswith(".")
    )
    if not entries:
        return "nothing"
    return ", ".join(entries[:6]) + (f", ... ({len(entries)} entries)" if len(entries) > 6 else "")
