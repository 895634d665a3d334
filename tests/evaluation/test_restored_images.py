"""Restored images and the ground truth of public data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from basicsr.evaluation.restored_images import match_restored
from basicsr.utils.errors import DataError


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def _pairs(restored: Path, gt: Path, layout: str, **arguments: bool) -> dict[str, Path]:
    return {each.name: each.gt for each in match_restored(restored, gt, layout, **arguments)}


def test_root_of_a_data_set_as_repacked_and_as_distributed(tmp_path):
    _touch(tmp_path, "restored/SEQ-000001.png")
    _touch(tmp_path, "repacked/input/SEQ-000001.png", "repacked/target/SEQ-000001.png")
    _touch(tmp_path, *(f"original/SEQ/{kind}/000001.png" for kind in ("blur", "blur_gamma")))
    _touch(tmp_path, "original/SEQ/sharp/000001.png")
    restored = tmp_path / "restored"
    for root, file in (("repacked", "target/SEQ-000001.png"), ("original", "SEQ/sharp/000001.png")):
        expected = {"SEQ-000001": tmp_path / root / file}
        assert _pairs(restored, tmp_path / root, "GoPro") == expected
    target = tmp_path / "repacked/target"
    assert _pairs(restored, target, "GoPro") == {"SEQ-000001": target / "SEQ-000001.png"}
    _touch(tmp_path, "restored/SEQ-000002.png")
    with pytest.raises(DataError, match=r"1 without a partner in .*restored \(SEQ-000002\.png\)"):
        match_restored(restored, tmp_path / "original", "GoPro")


def test_ground_truth_with_other_names(tmp_path):
    _touch(tmp_path, *(f"DPDD/{folder}/1P0A0{n}.png" for folder in ("inputC",) for n in (917, 933)))
    _touch(tmp_path, *(f"DPDD/target/1P0A0{n}.png" for n in (916, 932)))
    _touch(tmp_path, *(f"restored/1P0A0{n}.png" for n in (917, 933)))
    root, restored = tmp_path / "DPDD", tmp_path / "restored"
    expected = {"1P0A0917": root / "target/1P0A0916.png", "1P0A0933": root / "target/1P0A0932.png"}
    assert _pairs(restored, root, "DPDD") == expected
    with pytest.raises(DataError, match="target: DPDD is laid out as inputC/ and target/"):
        match_restored(restored, root / "target", "DPDD")

    np.save(root / "indoor_labels.npy", np.array([2]))
    with pytest.raises(DataError, match=r"1 without a partner in .*restored \(1P0A0917\.png\)"):
        match_restored(restored, root, "DPDD_indoor")
    found = _pairs(restored, root, "DPDD_indoor", allow_missing=True)
    assert found == {"1P0A0933": root / "target/1P0A0932.png"}
