"""Versions of public data sets: recognised by counts, names, sizes and rain, with what follows.

Sources: the papers and repositories of the sets and of PReNet, MPRNet (issues 23, 24, 27 and 74),
Restormer (issues 48 and 73), HINet (28) and SwinIR (94 and 133).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple


class Seen(NamedTuple):
    """Properties of the data set that is checked.

    Attributes:
        label: name of the set as the user gives it: the layout, or the folders of the images.
        pairs: number of pairs, or of images if there is no degraded side.
        sizes: (width, height) -> number of gt images.
        names: names of the degraded images, or of all if there is no such side, without folders.
        psnr: mean PSNR of the degraded images in RGB; None if there are none.
        lq_alone: number of degraded images without ground truth.
        gt_alone: number of gt images without degraded image.
        sixteen_bits: whether the files have 16 bits per channel.
        folders: names of folders in the root of the set, and below it in two levels.
    """

    label: str
    pairs: int
    sizes: Counter[tuple[int, int]]
    names: Sequence[str]
    psnr: float | None = None
    lq_alone: int = 0
    gt_alone: int = 0
    sixteen_bits: bool = False
    folders: frozenset[str] = frozenset()

    def has_sizes(self, *sizes: tuple[int, int]) -> bool:
        """Return whether all images have one of these sizes, upright or lying."""
        allowed = {*sizes, *((height, width) for width, height in sizes)}
        return bool(self.sizes) and set(self.sizes) <= allowed

    def has_names(self, pattern: str) -> bool:
        """Return whether all names match a regular expression."""
        return all(re.fullmatch(pattern, name) for name in self.names)


class Finding(NamedTuple):
    """What is known about the version of a set; a fault makes the check fail."""

    text: str
    is_fault: bool = False


Rule = Callable[[Seen], "Finding | None"]

_BSDS, _CUT_BSDS = (481, 321), (480, 320)


def findings(seen: Seen) -> list[Finding]:
    """Return what is known about the data set."""
    found = [rule(seen) for pattern, rule in _RULES if _is_called(seen.label, pattern)]
    return [finding for finding in found if finding is not None]


def label_of(layout: str | None, *folders: str | Path | None) -> str:
    """Return the layout, or the last names of the folders, by which a set is recognised."""
    if layout:
        return layout
    parts = [part for folder in folders if folder for part in Path(folder).resolve().parts[-4:]]
    return "/".join(parts)


def _is_called(label: str, pattern: str) -> bool:
    plain = re.sub(r"[-_ ]", "", label.lower())
    return re.search(rf"(?<![a-z0-9])(?:{pattern})(?![a-z0-9])", plain) is not None


def _rain100(seen: Seen) -> Finding | None:
    letter = "L" if seen.psnr is not None and seen.psnr > 20 else "H"
    is_new = seen.has_names(r".*x2") or (letter == "H" and seen.pairs == 200)
    if seen.pairs in (200, 1800) and is_new:
        part = "test" if seen.pairs == 200 else "training"
        return Finding(
            f"the new version, which papers call Rain200{letter} ({part} set); its scores cannot "
            f"be compared with Rain100{letter}'s: use --layout Rain200{letter}, or get the old "
            "version of 100 test images",
            is_fault=True,
        )
    if seen.pairs == 1800:
        return _rain_train_h(seen)
    if seen.pairs == 200:
        return Finding(
            "200 pairs of light rain: RainTrainL, the training set of Rain100L, or the test set of "
            "its new version Rain200L; not the test set of 100 pairs",
            is_fault=True,
        )
    if seen.pairs != 100:
        return None
    if seen.has_sizes(_BSDS):
        return Finding(
            "the old, original version with whole images, as in PReNet's and DTPNet's tables; "
            "MPRNet and Restormer measured a copy that is cut to 480x320"
        )
    if seen.has_sizes(_CUT_BSDS):
        return Finding(
            "the copy of MPRNet and Restormer, cut to 480x320; PReNet and DTPNet measured the "
            "whole images of 481x321"
        )
    return Finding("100 pairs of other sizes than 481x321 or 480x320: resized images?", True)


def _heaviness(seen: Seen) -> Finding | None:
    """Compare the rain with the last letter of the name: L and H show the same scenes."""
    named = re.search(r"rain(?:train|100|200)([lh])(?![a-z0-9])", seen.label.lower())
    if not named or seen.psnr is None:
        return None
    found = "l" if seen.psnr > 20 else "h"  # dB in RGB: about 25.5 for L and 12 for H
    if found == named[1]:
        return None
    rain = "light" if found == "l" else "heavy"
    return Finding(
        f"its rain is {rain} (input PSNR {seen.psnr:.1f} dB): this is the set of the same name "
        f"with {found.upper()}",
        is_fault=True,
    )


def _rain_train_h(seen: Seen) -> Finding | None:
    if seen.has_names(r"norain-\d+x2"):
        return Finding("the new version, called Rain200H: use --layout Rain200H", True)
    if seen.pairs == 1800:
        return Finding(
            "all 1800 pairs; 546 of them show scenes of Rain100H's and Rain100L's test set. The "
            "PReNet authors train on the other 1254: leave them out for results on these sets"
        )
    if seen.pairs == 1254:
        return Finding("the 1254 pairs of the PReNet authors, without scenes of Rain100H")
    return None


def _rain_train_l(seen: Seen) -> Finding | None:
    if seen.pairs == 200:
        return Finding("the original 200 pairs; they share no scene with Rain100L and Rain100H")
    if seen.pairs == 1800:
        return Finding("the new version, called Rain200L: use --layout Rain200L", True)
    return None


def _rain200(seen: Seen) -> Finding | None:
    if seen.pairs == 100:
        return Finding(
            "100 pairs, as in the old Rain100 test sets; Rain200L and Rain200H have 1800 training "
            "and 200 test pairs, whose scores cannot be compared with these",
            is_fault=True,
        )
    return {
        1800: Finding("the training set; Rain200's test set is another than Rain100's"),
        200: Finding("the test set; its scores cannot be compared with Rain100's"),
    }.get(seen.pairs)


def _test100(seen: Seen) -> Finding | None:
    return {
        98: Finding("98 of the 100 pairs, as MSPFN, MPRNet and Restormer measured them"),
        100: Finding(
            "all 100 pairs of Rain800's test set; MSPFN, MPRNet and Restormer measured 98 of them"
        ),
        700: Finding("the training set of Rain800; 13 images show scenes of Rain100's test set"),
        800: Finding("training and test set of Rain800 together: 700 and 100 pairs", True),
    }.get(seen.pairs)


def _test2800(seen: Seen) -> Finding | None:
    if any("(1)" in name for name in seen.names):
        return Finding("an earlier copy with the duplicate 926_10(1).jpg: remove that file", True)
    return {
        1400: Finding("the test set of PReNet's split: 100 scenes"),
        2800: Finding("the test set of MSPFN, MPRNet and Restormer: 200 scenes"),
        9100: Finding("the 9100 pairs of DDN's training part"),
        12600: Finding("the training set of PReNet's split: 900 scenes"),
        14000: Finding("all 14000 pairs: hold out the scenes of the test set yourself"),
    }.get(seen.pairs)


def _rain13k(seen: Seen) -> Finding | None:
    return {
        13711: Finding("the 13711 pairs that can be downloaded (the paper counts 13712)"),
        13712: Finding("13712 pairs; the authors removed one whose images differ in size"),
    }.get(seen.pairs)


def _hide(seen: Seen) -> Finding | None:
    if seen.pairs + seen.lq_alone + seen.gt_alone == 2025 == seen.pairs:
        return Finding("the 2025 test pairs")
    return Finding(
        f"{seen.pairs} pairs, {seen.lq_alone} and {seen.gt_alone} images alone, instead of 2025 "
        "pairs: an incomplete download (some copies have 1079 and 942 images); get it again",
        is_fault=True,
    )


def _gopro(seen: Seen) -> Finding | None:
    if "blur_gamma" in seen.folders and "blur" not in seen.folders:
        return Finding(
            "blur_gamma, a second version of the images; networks are trained and measured on blur",
            is_fault=True,
        )
    return {
        1111: Finding("the 1111 test pairs"),
        2103: Finding("the 2103 training pairs"),
        3214: Finding("training and test pairs together: 2103 and 1111", True),
        16824: Finding("the training crops of 512 pixels"),
    }.get(seen.pairs)


def _dpdd(seen: Seen) -> Finding | None:
    part = {350: "training", 74: "validation", 76: "test"}.get(seen.pairs)
    if part is None:
        return None
    if seen.sixteen_bits:
        return Finding(f"the {part} set with 16 bits per channel")
    return Finding(
        f"the {part} set with 8 bits per channel: a converted copy; dual-pixel networks are "
        "trained and measured with 16 bits"
    )


def _realblur(seen: Seen) -> Finding | None:
    return {
        980: Finding(
            "the 980 test pairs; scores of networks trained on GoPro and on RealBlur are two tables"
        ),
        3758: Finding("the 3758 training pairs"),
    }.get(seen.pairs)


def _kodak(seen: Seen) -> Finding | None:
    if seen.pairs != 24:
        return None
    if seen.has_sizes((500, 500)):
        return Finding(
            "the crops of 500x500 of FFDNet and KAIR; Restormer measured the whole images of "
            "768x512, whose PSNR is 0.11 to 0.14 dB apart"
        )
    if seen.has_sizes((768, 512)):
        return Finding(
            "the whole images of 768x512, as Restormer measured them; FFDNet and KAIR measured "
            "crops of 500x500, whose PSNR is 0.11 to 0.14 dB apart"
        )
    return Finding("24 images of other sizes than 768x512 or 500x500: resized images?", True)


def _set12(seen: Seen) -> Finding | None:
    sizes = Counter({(256, 256): 7, (512, 512): 5})
    return Finding("the published images") if seen.sizes == sizes else None


def _counts(**parts: int) -> Rule:
    """Return a rule for sets of which only the counts of the parts are known."""

    def rule(seen: Seen) -> Finding | None:
        for part, count in parts.items():
            if seen.pairs == count:
                return Finding(f"the {part.replace('_', ' ')}: {count}")
        return None

    return rule


def _published(*counts: int) -> Rule:
    """Return a rule that reports another number of images than the published ones."""

    def rule(seen: Seen) -> Finding | None:
        if seen.pairs in counts:
            return None
        expected = " or ".join(map(str, counts))
        return Finding(f"{seen.pairs} images or pairs instead of {expected}: a part of the set")

    return rule


# a pattern of the set's name without - and _, and what to look for
_RULES: tuple[tuple[str, Rule], ...] = (
    ("rain(?:train|100|200)[lh]", _heaviness),
    ("rain100[lh]?", _rain100),
    ("rain100[lh]?", _published(100, 200, 1800)),
    ("raintrainh", _rain_train_h),
    ("raintrainh", _published(1254, 1800)),
    ("raintrainl", _rain_train_l),
    ("raintrainl", _published(200, 1800)),
    ("rain200[lh]?", _rain200),
    ("rain200[lh]?", _published(100, 200, 1800)),
    ("rain12", _counts(test_set=12)),
    ("rain12", _published(12)),
    ("test100|rain800", _test100),
    ("test100|rain800", _published(98, 100, 700, 800)),
    ("test1200", _counts(test_set=1200)),
    ("test1200", _published(1200)),
    ("test2800|rain1400|rain14000|rain12600|ddn", _test2800),
    ("test2800|rain1400|rain14000|rain12600|ddn", _published(1400, 2800, 9100, 12600, 14000)),
    ("rain13k", _rain13k),
    ("rain13k", _published(13711, 13712)),
    ("spadata", _counts(test_set=1000, training_set=638492)),
    ("raindrop", _counts(test_set_A=58, test_set_B=239, training_set=861)),
    ("hide", _hide),
    ("gopro(?:large)?", _gopro),
    ("gopro(?:large)?", _published(1111, 2103, 3214, 16824)),
    ("dpdd(?:dual)?", _dpdd),
    ("dpdd(?:dual)?", _published(350, 74, 76, 7000)),
    ("realblur[jr]?(?:train)?", _realblur),
    ("realblur[jr]?(?:train)?", _published(980, 3758)),
    ("sidd", _counts(training_pairs_of_SIDD_Medium=320)),
    ("kodak(?:24)?", _kodak),
    ("kodak(?:24)?", _published(24)),
    ("set12", _set12),
    ("set12", _published(12)),
    ("mcmaster", _published(18)),
    ("urban100", _published(100)),
    ("c?bsd68", _published(68)),
    ("bsd400|train400", _published(400)),
    ("div2k", _counts(training_set=800, validation_set=100)),
    ("flickr2k", _published(2650)),
    ("waterlooed|waterloo|wed", _published(4744)),
)
