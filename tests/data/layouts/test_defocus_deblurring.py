"""Layouts of DPDD."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from basicsr.data.layouts import match
from basicsr.utils.errors import DataError


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def _distributed(root: Path, part: str = "test") -> Path:
    """Write the first shots of the test set, whose partners have neighbouring numbers."""
    for shot in (917, 933, 960):
        _touch(root, *(f"{part}_{view}/source/1P0A{shot:04d}.png" for view in "clr"))
    for sharp in (916, 932, 959):
        _touch(root, *(f"{part}_{view}/target/1P0A{sharp:04d}.png" for view in "clr"))
    return root / f"{part}_c"


def test_shots_as_distributed(tmp_path):
    root = _distributed(tmp_path)
    pairs = match(root, "DPDD").complete()
    assert [pair.name for pair in pairs] == ["1P0A0917", "1P0A0933", "1P0A0960"]
    assert [pair.gt.stem for pair in pairs] == ["1P0A0916", "1P0A0932", "1P0A0959"]
    assert pairs[0].lq == root / "source/1P0A0917.png"
    assert pairs[0].lq_right is None


def test_views_as_distributed_are_those_of_the_same_part(tmp_path):
    _distributed(tmp_path, "train")
    root = _distributed(tmp_path, "val")
    pair = match(root, "DPDD_dual").complete()[1]
    assert pair.lq.resolve() == tmp_path.resolve() / "val_l/source/1P0A0933.png"
    assert pair.lq_right.resolve() == tmp_path.resolve() / "val_r/source/1P0A0933.png"
    assert pair.gt == root / "target/1P0A0932.png"


@pytest.mark.parametrize("suffix", ["", "_crops"])
def test_repacked_and_cut(tmp_path, suffix):
    _touch(tmp_path, *(f"{view}{suffix}/a-1.png" for view in ("inputC", "inputL", "inputR")))
    _touch(tmp_path, f"target{suffix}/a-1.png")
    (single,) = match(tmp_path, "DPDD").complete()
    (dual,) = match(tmp_path, "DPDD_dual").complete()
    assert single.lq == tmp_path / f"inputC{suffix}/a-1.png"
    assert dual.lq == tmp_path / f"inputL{suffix}/a-1.png"
    assert dual.lq_right == tmp_path / f"inputR{suffix}/a-1.png"
    assert single.gt == dual.gt == tmp_path / f"target{suffix}/a-1.png"


def test_shots_that_cannot_belong_together_are_refused(tmp_path):
    root = _distributed(tmp_path)
    (root / "target/1P0A0932.png").rename(root / "target/1P0A0950.png")
    with pytest.raises(DataError, match="1P0A0950 is at the place of the partner of 1P0A0933"):
        match(root, "DPDD")
    (root / "target/1P0A0950.png").unlink()
    with pytest.raises(DataError, match="target: 2 images for 3 shots"):
        match(root, "DPDD")


def test_equal_names_go_before_the_order(tmp_path):
    for folder in ("inputC", "target"):
        _touch(tmp_path, *(f"{folder}/{name}.png" for name in ("1", "9", "30")))
    assert all(pair.gt.stem == pair.name for pair in match(tmp_path, "DPDD").complete())


def _labelled(root: Path, *positions: int) -> None:
    for folder in ("inputC", "inputL", "inputR", "target"):
        _touch(root, *(f"{folder}/{name}.png" for name in ("2", "9", "10", "30")))
    np.save(root / "outdoor_labels.npy", np.array(positions))


def test_parts_by_the_positions_of_the_labels(tmp_path):
    _labelled(tmp_path, 1, 3)  # of the natural order 2, 9, 10, 30
    single = match(tmp_path, "DPDD_outdoor").complete()
    dual = match(tmp_path, "DPDD_dual_outdoor").complete()
    assert [pair.name for pair in single] == ["2", "10"] == [pair.name for pair in dual]
    assert dual[1].lq_right == tmp_path / "inputR/10.png"
    assert single[1].gt == dual[1].gt == tmp_path / "target/10.png"
    with pytest.raises(DataError, match=r"inputC/ and target/ with indoor_labels\.npy"):
        match(tmp_path, "DPDD_indoor")


@pytest.mark.parametrize("positions", [(0, 1), (4, 5), (2, 2), (), (1.5,)])
def test_labels_of_other_sets_are_refused(tmp_path, positions):
    _labelled(tmp_path, *positions)
    with pytest.raises(DataError, match=r"outdoor_labels\.npy: expected different positions"):
        match(tmp_path, "DPDD_outdoor")


def test_broken_labels(tmp_path):
    _labelled(tmp_path, 1)
    (tmp_path / "outdoor_labels.npy").write_bytes(b"1, 2")
    with pytest.raises(DataError, match=r"outdoor_labels\.npy: not a readable NumPy file"):
        match(tmp_path, "DPDD_outdoor")
