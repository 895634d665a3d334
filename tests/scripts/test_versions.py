"""Versions of public data sets that check_dataset.py recognises."""

from __future__ import annotations

from collections import Counter

import pytest

BSDS, CUT = (481, 321), (480, 320)
BOTH_WAYS = {BSDS: 66, BSDS[::-1]: 34}


@pytest.fixture
def versions(load_script):
    load_script("check_dataset")
    from checking import versions

    return versions


@pytest.mark.parametrize(
    ("label", "pairs", "seen", "is_fault", "words"),
    [
        ("Rain100H", 100, {"sizes": BOTH_WAYS, "psnr": 12.0}, False, "the old, orig"),
        ("Rain100L", 100, {"sizes": {CUT: 9, CUT[::-1]: 1}, "psnr": 25.0}, False, "copy of MPRNet"),
        ("Rain100L", 100, {"sizes": {(512, 512): 100}, "psnr": 25.0}, True, "resized"),
        ("Rain100H", 100, {"sizes": {BSDS: 100}, "psnr": 25.0}, True, "of the same name with L"),
        ("Rain100H", 200, {"psnr": 12.0}, True, "which papers call Rain200H (test set)"),
        ("Rain100L", 200, {"psnr": 25.0, "names": ["norain-1x2"]}, True, "Rain200L (test set)"),
        ("Rain100L", 200, {"psnr": 25.0}, True, "RainTrainL, the training set of Rain100L, or"),
        ("Rain100H", 1800, {"psnr": 12.0, "names": ["norain-1x2"]}, True, "Rain200H (train"),
        ("Rain100H", 1800, {"sizes": {BSDS: 1800}, "psnr": 12.0}, False, "546 of them show scenes"),
        ("Rain100H", 60, {"psnr": 12.0}, False, "60 images or pairs instead of 100"),
        ("data/Rain100L_old/rainy/x", 100, {}, None, ""),
        ("data/Rain100L/rainy", 100, {"sizes": {BSDS: 100}, "psnr": 25.0}, False, "the old, orig"),
        ("RainTrainH", 1800, {"psnr": 12.0}, False, "546 of them show scenes of Rain100H"),
        ("RainTrainH", 1254, {"psnr": 12.0}, False, "the 1254 pairs of the PReNet authors"),
        ("RainTrainH", 1800, {"psnr": 12.0, "names": ["norain-7x2"]}, True, "called Rain200H"),
        ("RainTrainH", 1253, {"psnr": 12.0}, False, "1253 images or pairs instead of 1254 or 1800"),
        ("RainTrainL", 200, {"psnr": 25.0}, False, "they share no scene with Rain100L"),
        ("RainTrainL", 1800, {"psnr": 25.0}, True, "called Rain200L"),
        ("Rain200L", 100, {"psnr": 25.0}, True, "100 pairs, as in the old Rain100 test sets"),
        ("Rain200H", 200, {"psnr": 12.0}, False, "cannot be compared with Rain100"),
        ("Rain200H", 1800, {"psnr": 25.0}, True, "with L"),
        ("Test100", 98, {}, False, "98 of the 100 pairs, as MSPFN, MPRNet and Restormer"),
        ("Test100", 100, {}, False, "measured 98 of them"),
        ("Rain800", 700, {}, False, "13 images show scenes of Rain100"),
        ("Test2800", 2801, {"names": ["926_10(1)"]}, True, "duplicate 926_10(1).jpg"),
        ("Test2800", 2800, {}, False, "200 scenes"),
        ("Rain13K", 13711, {}, False, "the 13711 pairs"),
        ("HIDE", 2025, {}, False, "the 2025 test pairs"),
        ("HIDE", 942, {"lq_alone": 137}, True, "942 pairs, 137 and 0 images alone, instead"),
        ("GoPro", 1111, {"folders": {"blur_gamma", "sharp"}}, True, "blur_gamma, a second version"),
        ("GoPro", 1111, {"folders": {"blur_gamma", "blur"}}, False, "the 1111 test pairs"),
        ("GoPro", 3214, {}, True, "training and test pairs together"),
        ("DPDD_dual", 76, {"sixteen_bits": True}, False, "the test set with 16 bits"),
        ("DPDD_dual", 76, {}, False, "8 bits per channel: a converted copy"),
        ("RealBlur_J", 980, {}, False, "the 980 test pairs"),
        ("SIDD", 320, {}, False, "SIDD Medium: 320"),
        ("my/Kodak24", 24, {"sizes": {(768, 512): 18, (512, 768): 6}}, False, "whole images"),
        ("kodak", 24, {"sizes": {(500, 500): 24}}, False, "the crops of 500x500 of FFDNet"),
        ("Kodak24", 24, {"sizes": {(256, 256): 24}}, True, "resized"),
        ("Set12", 12, {"sizes": {(256, 256): 7, (512, 512): 5}}, False, "the published images"),
        ("BSD400", 500, {}, False, "500 images or pairs instead of 400"),
        ("SPA-Data", 1000, {}, False, "the test set: 1000"),
        ("photographs", 7, {}, None, ""),
    ],
)  # fmt: skip
def test_versions(versions, label, pairs, seen, is_fault, words):
    seen = {"names": ["1"], **seen}
    seen["sizes"] = Counter(seen.get("sizes", {}))
    found = versions.findings(versions.Seen(label=label, pairs=pairs, **seen))
    if is_fault is None:
        assert found == []
    else:
        finding = next(finding for finding in found if words in finding.text)
        assert finding.is_fault is is_fault


def test_labels(versions, tmp_path):
    assert versions.label_of("Rain100L", "somewhere", None, None) == "Rain100L"
    parts = (tmp_path / "Rain100L" / "rainy").parts[-4:]
    assert versions.label_of(None, None, tmp_path / "Rain100L" / "rainy", None) == "/".join(parts)
