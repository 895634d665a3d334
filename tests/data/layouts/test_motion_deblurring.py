"""Layouts of the motion-deblurring sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from basicsr.data.layouts import match
from basicsr.utils.errors import DataError


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_gopro_as_distributed_has_the_names_of_the_repacked_set(tmp_path):
    for view in ("blur", "blur_gamma", "sharp"):
        _touch(tmp_path, f"GOPR0410_11_00/{view}/000227.png", f"GOPR0384_11_05/{view}/000227.png")
    pairs = match(tmp_path, "GoPro").complete()
    assert [pair.name for pair in pairs] == ["GOPR0384_11_05-000227", "GOPR0410_11_00-000227"]
    assert pairs[1].lq == tmp_path / "GOPR0410_11_00/blur/000227.png"
    assert pairs[1].gt == tmp_path / "GOPR0410_11_00/sharp/000227.png"


@pytest.mark.parametrize("suffix", ["", "_crops"])
def test_gopro_repacked_and_cut(tmp_path, suffix):
    _touch(tmp_path, f"input{suffix}/A-1.png", f"target{suffix}/A-1.png")
    (pair,) = match(tmp_path, "GoPro").complete()
    assert (pair.name, pair.gt) == ("A-1", tmp_path / f"target{suffix}/A-1.png")


def test_gopro_without_a_sharp_image_is_incomplete(tmp_path):
    _touch(tmp_path, "A/blur/1.png", "A/sharp/1.png", "A/blur/2.png", "A/sharp/3.png")
    with pytest.raises(DataError, match=r"A/blur/2\.png.*A/sharp/3\.png.*expected SEQUENCE/blur"):
        match(tmp_path, "GoPro").complete()


def test_blur_gamma_is_not_blur(tmp_path):
    _touch(tmp_path, "A/blur_gamma/1.png", "A/sharp/1.png")
    with pytest.raises(DataError, match="or SEQUENCE/blur/000001"):
        match(tmp_path, "GoPro")


def test_hide_keeps_a_suffix_inside_of_a_name(tmp_path):
    for view in ("input", "target"):
        _touch(tmp_path, f"{view}/109fromGOPR1096.MP4.png", f"{view}/1fromGOPR0950.png")
    names = [pair.name for pair in match(tmp_path, "HIDE").complete()]
    assert names == ["1fromGOPR0950", "109fromGOPR1096.MP4"]


def test_realblur_follows_the_list_of_its_part(tmp_path):
    folder = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"
    for scene in ("scene001", "scene230"):
        _touch(tmp_path, f"{folder}/{scene}/gt/gt_7.png", f"{folder}/{scene}/blur/blur_7.png")
    for part, scene in (("train", "scene001"), ("test", "scene230")):
        gt, blur = (f"{folder}/{scene}/{view}/{view}_7.png" for view in ("gt", "blur"))
        (tmp_path / f"RealBlur_J_{part}_list.txt").write_text(f"{gt} {blur} \n\n")
    (pair,) = match(tmp_path, "RealBlur_J").complete()
    assert pair.name == "scene230-7"
    assert pair.lq == tmp_path / folder / "scene230/blur/blur_7.png"
    assert pair.gt == tmp_path / folder / "scene230/gt/gt_7.png"
    (pair,) = match(tmp_path, "RealBlur_J_train").complete()
    assert pair.name == "scene001-7"
    with pytest.raises(DataError, match="RealBlur_R is laid out as"):
        match(tmp_path, "RealBlur_R")
    pair.lq.unlink()
    with pytest.raises(DataError, match=r"blur_7\.png: no such file, but .*_train_list\.txt names"):
        match(tmp_path, "RealBlur_J_train")
    (tmp_path / "RealBlur_J_test_list.txt").write_text("a.png\n")
    with pytest.raises(DataError, match=r"RealBlur_J_test_list\.txt: line 1 is not of the form"):
        match(tmp_path, "RealBlur_J")


def test_realblur_repacked(tmp_path):
    _touch(tmp_path, "input/scene050-6.png", "target/scene050-6.png")
    assert [pair.name for pair in match(tmp_path, "RealBlur_R").complete()] == ["scene050-6"]
