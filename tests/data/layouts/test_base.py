"""Matching the files of pairs, and the errors for files without a partner."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from basicsr.data.layouts import Folders, PairFiles, match, match_folders
from basicsr.utils.errors import DataError


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_pairs_are_made_by_name_never_by_position(tmp_path: Path):
    _touch(tmp_path, *(f"rain/norain-{i}.png" for i in range(1, 12)))
    _touch(tmp_path, *(f"norain/norain-{i}.png" for i in range(1, 12)))
    for pair in match(tmp_path, "RainTrainL").complete():
        assert pair.lq.name == pair.gt.name


def test_left_over_files_of_both_sides_are_named(tmp_path: Path):
    _touch(tmp_path, *(f"rain/norain-{i}.png" for i in range(1, 6)))
    _touch(tmp_path, "norain/norain-5.png", "norain/norain-7.png")
    with pytest.raises(DataError) as caught:
        match(tmp_path, "RainTrainL").complete()
    rain, clean = tmp_path / "rain", tmp_path / "norain"
    assert str(caught.value) == (
        f"4 lq images without a partner ({rain}/norain-1.png, {rain}/norain-2.png, "
        f"{rain}/norain-3.png, ...) and 1 gt images without a partner "
        f"({clean}/norain-7.png); expected x.png with x.png"
    )


def test_a_name_outside_the_rule_is_left_over(tmp_path: Path):
    _touch(tmp_path, "rain/norain-1x2.png", "rain/other.png", "norain/norain-1.png")
    pairing = match(tmp_path, "Rain200L")
    assert [pair.name for pair in pairing.pairs] == ["norain-1x2"]
    assert pairing.lq_alone == [tmp_path / "rain/other.png"]


def test_another_layout_is_described(tmp_path: Path):
    _touch(tmp_path, "images/1.png", "labels/1.png")
    with pytest.raises(DataError) as caught:
        match(tmp_path, "RainTrainL")
    assert str(caught.value) == (
        f"{tmp_path}: RainTrainL is laid out as rain/ and norain/ (x.png with x.png); or rain/ "
        "and norain/ (rain-001.png with norain-001.png); or input/ and target/ (x.png with x.png); "
        "or rain-001.png with norain-001.png; found images/, labels/"
    )


def test_unknown_layout_names_the_nearest(tmp_path: Path):
    with pytest.raises(DataError, match=r"'RainTrainl' \(did you mean 'RainTrainL'\?\); known: "):
        match(tmp_path, "RainTrainl")


def test_missing_folder(tmp_path: Path):
    with pytest.raises(DataError, match="x: no such folder; check dataroot, or put Rain800 there"):
        match(tmp_path / "x", "Rain800")


def test_two_files_that_differ_in_their_suffix_only(tmp_path: Path):
    _touch(tmp_path, "rain/1.png", "rain/1.jpg", "norain/1.png")
    with pytest.raises(DataError, match="differ in their suffix only; keep one"):
        match_folders(tmp_path / "rain", tmp_path / "norain")


def test_folders_keep_subfolders_apart(tmp_path: Path):
    _touch(tmp_path, "lq/a/1.png", "lq/b/1.png", "gt/a/1.jpg", "gt/b/1.jpg")
    pairs = match_folders(tmp_path / "lq", tmp_path / "gt").complete()
    assert [(pair.name, pair.gt.parent.name) for pair in pairs] == [("a/1", "a"), ("b/1", "b")]


def test_two_views_make_one_lq(tmp_path: Path):
    _touch(tmp_path, "left/1.png", "left/2.png", "left/4.png")
    _touch(tmp_path, "right/1.png", "right/3.png", "right/4.png", "gt/1.png", "gt/2.png")
    left, right, gt = (tmp_path / folder for folder in ("left", "right", "gt"))
    pairing = match_folders(left, gt, right)
    assert pairing.pairs == [PairFiles("1", left / "1.png", gt / "1.png", None, right / "1.png")]
    assert pairing.lq_alone == [left / "2.png", left / "4.png", right / "3.png"]
    assert pairing.gt_alone == []


def test_a_layout_with_two_views(tmp_path: Path):
    form = Folders("inputL", "target", right_folder="inputR")
    _touch(tmp_path, "inputL/1.png", "target/1.png")
    assert not form.is_present(tmp_path)
    _touch(tmp_path, "inputR/1.png")
    assert form.is_present(tmp_path)
    assert form.match(tmp_path).complete()[0].lq_right == tmp_path / "inputR/1.png"
    assert str(form) == "inputL/, inputR/ and target/ (x.png with x.png)"


@pytest.mark.parametrize(("name", "answer"), [("Toy", "1.png"), ("Rain100L", "defined already")])
def test_a_task_adds_its_layouts_with_one_file(tmp_path: Path, name: str, answer: str):
    """The file lies in another folder here, which the package searches too."""
    _touch(tmp_path, "set/hazy/1.png", "set/clear/1.png")
    (tmp_path / "dehazing.py").write_text(
        "from basicsr.data.layouts.base import Folders\n"
        f"LAYOUTS = {{{name!r}: (Folders('hazy', 'clear'),)}}\n"
    )
    program = f"""
from basicsr.data import layouts
layouts.__path__.append({str(tmp_path)!r})
known = layouts.collect()
assert layouts.LAYOUTS.items() < known.items()
print(layouts.base.match({str(tmp_path / "set")!r}, {name!r}, known).complete()[0].gt.name)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert answer in done.stdout + done.stderr
