"""Layouts of SIDD."""

from __future__ import annotations

from pathlib import Path

import pytest

from basicsr.data.layouts import match
from basicsr.utils.errors import DataError


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_sidd_as_distributed(tmp_path):
    scene = "0001_001_S6_00100_00060_3200_L"
    for number in ("010", "011"):
        _touch(tmp_path, *(f"{scene}/0001_{k}_SRGB_{number}.PNG" for k in ("NOISY", "GT")))
    pairs = match(tmp_path, "SIDD").complete()
    assert [pair.name for pair in pairs] == ["0001_NOISY_SRGB_010", "0001_NOISY_SRGB_011"]
    assert pairs[1].lq == tmp_path / scene / "0001_NOISY_SRGB_011.PNG"
    assert pairs[1].gt == tmp_path / scene / "0001_GT_SRGB_011.PNG"


def test_sidd_cut(tmp_path):
    _touch(tmp_path, "input_crops/0001_NOISY_SRGB_010-3.png")
    _touch(tmp_path, "target_crops/0001_NOISY_SRGB_010-3.png")
    (pair,) = match(tmp_path, "SIDD").complete()
    assert pair.gt == tmp_path / "target_crops/0001_NOISY_SRGB_010-3.png"


def test_one_name_in_two_scenes_is_refused(tmp_path):
    for scene in ("a", "b"):
        _touch(tmp_path, *(f"{scene}/0001_{k}_SRGB_010.PNG" for k in ("NOISY", "GT")))
    with pytest.raises(DataError, match="are both called 0001_NOISY_SRGB_010; keep one"):
        match(tmp_path, "SIDD")
