from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from basicsr.data import build_dataset
from basicsr.io.images import read_image, write_png


def _fingerprint(root: Path, **options) -> dict:
    by = {"type": "PairedImageDataset", "dataroot": str(root), "layout": "RainTrainL"}
    return build_dataset({**by, **options}).fingerprint()


@pytest.fixture
def root(make_images) -> Path:
    return make_images(f"set/{side}/{i}.png" for side in ("rain", "norain") for i in range(12)) / (
        "set"
    )


def test_it_is_small_and_plain(root: Path):
    fingerprint = _fingerprint(root)
    assert json.loads(json.dumps(fingerprint)) == fingerprint
    assert fingerprint["images"] == 12
    assert len(fingerprint["sha256"]) == 64


def test_a_copy_elsewhere_is_the_same_set(root: Path, tmp_path: Path, monkeypatch):
    copy = tmp_path / "elsewhere" / "data"
    shutil.copytree(root, copy)
    for path in copy.rglob("*.png"):
        os.utime(path, (0, 0))
    assert _fingerprint(copy) == _fingerprint(root)
    monkeypatch.chdir(copy)
    assert _fingerprint(Path(".")) == _fingerprint(root)


def _edit(root: Path) -> None:
    content = bytearray((root / "norain/5.png").read_bytes())
    content[-20] ^= 1
    (root / "norain/5.png").write_bytes(content)


def _swap(root: Path) -> None:
    for side in ("rain", "norain"):
        (root / side / "3.png").rename(root / side / "x.png")
        (root / side / "4.png").rename(root / side / "3.png")
        (root / side / "x.png").rename(root / side / "4.png")


CHANGES = {
    "added": lambda root: [shutil.copy(root / s / "1.png", root / s / "99.png") for s in SIDES],
    "removed": lambda root: [(root / side / "1.png").unlink() for side in SIDES],
    "renamed": lambda root: [(root / s / "1.png").rename(root / s / "1b.png") for s in SIDES],
    "replaced": lambda root: write_png(root / "rain/6.png", read_image(root / "rain/6.png")[:5]),
    "edited": _edit,
    "swapped": _swap,
    "missing": lambda root: [
        (root / "rain/6.png").unlink(),
        (root / "rain/6.png").symlink_to("nowhere"),
    ],
}
SIDES = ("rain", "norain")


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_shows(root: Path, change: str):
    before = _fingerprint(root)
    CHANGES[change](root)
    assert _fingerprint(root) != before


def test_a_size_shows_in_a_set_too_large_to_be_hashed_in_full(root: Path, monkeypatch):
    monkeypatch.setattr("basicsr.data.base.HASHED_FILES", 1)
    before = _fingerprint(root)
    with (root / "norain/7.png").open("ab") as file:
        file.write(b"x")
    assert _fingerprint(root) != before


def test_options_that_change_the_training_data(root: Path, make_images):
    prints = {_fingerprint(root, split=split)["sha256"] for split in ("all", "train", "val")}
    assert len(prints) == 3

    def synthetic(**options):
        by = {"type": "SyntheticRainDataset", "dataroot_gt": str(root / "norain")}
        return build_dataset({**by, **options}).fingerprint()

    assert synthetic(rain="light") != synthetic(rain="heavy")
    assert synthetic(seed=1) == synthetic(seed=2)  # of `sample` only: patches follow manual_seed
    assert synthetic(cache="memory") == synthetic()

    wide = make_images(["wide/1.png"], width=8) / "wide"
    left, right = (_fingerprint(wide, layout=layout) for layout in ("DID-MDN", "Rain800"))
    assert left != right


def test_images_without_ground_truth(root: Path):
    by = {"type": "ImageFolderDataset", "dataroot_lq": str(root / "rain")}
    assert build_dataset(by).fingerprint()["images"] == 12
