"""Layouts of the deraining sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from basicsr.data import LAYOUTS
from basicsr.data.layouts import deraining, match

# layout, rainy file, its clean file: one entry for each form of each set
FORMS = [
    ("Rain100L", "rainy/rain-001.png", "norain/norain-001.png"),
    ("Rain100L", "rain-001.png", "norain-001.png"),
    ("Rain100L", "input/1.png", "target/1.png"),
    ("Rain100H", "rainy/rain-100.png", "norain/norain-100.png"),
    ("Rain100H", "rain-001.png", "norain-001.png"),
    ("Rain100H", "input/1.png", "target/1.png"),
    ("RainTrainL", "rain/norain-1.png", "norain/norain-1.png"),
    ("RainTrainH", "rain/norain-1800.png", "norain/norain-1800.png"),
    ("Rain200L", "rain/norain-1x2.png", "norain/norain-1.png"),
    ("Rain200L", "rain/X2/norain-12x2.png", "norain/norain-12.png"),
    ("Rain200L", "input/1.png", "target/1.png"),
    ("Rain200H", "rain/norain-1x2.png", "norain/norain-1.png"),
    ("Rain200H", "input/1.png", "target/1.png"),
    ("Rain12", "001_in.png", "001_GT.png"),
    ("Rain12", "rainy/rain-001.png", "norain/norain-001.png"),
    ("Rain800", "1.jpg", "1.jpg"),
    ("Rain800", "rain/rain-001.png", "norain/norain-001.png"),
    ("Test100", "input/1.png", "target/1.png"),
    ("DID-MDN", "1.jpg", "1.jpg"),
    ("DID-MDN", "Rain_Heavy/train2018new/1.jpg", "Rain_Heavy/train2018new/1.jpg"),
    ("Test1200", "input/1.png", "target/1.png"),
    ("DID-Data", "input/12H.jpg", "GT/12.jpg"),
    ("DID-Data", "input/12L.jpg", "GT/12.jpg"),
    ("DID-Data", "rain/12.jpg", "norain/12.jpg"),
    ("Rain1400", "rainy_image/901_14.jpg", "ground_truth/901.jpg"),
    ("DDN", "rain/901_1.jpg", "norain/901.jpg"),
    ("Test2800", "input/901_1.jpg", "target/901_1.jpg"),
    ("Rain13K", "input/1.jpg", "target/1.jpg"),
    ("SPA-Data", "rain/norain-927.png", "norain/norain-927.png"),
    ("SPA-Data", "rain/000.png", "gt/000gt.png"),
    ("RainDrop", "data/0_rain.png", "gt/0_clean.png"),
    ("RainDrop", "rain_image/0_rain.png", "clean_image/0_clean.png"),
    (
        "RainKITTI2015",
        "image_2_3_rain50/000000_00_rain_2_50.jpg",
        "image_2/000000_00_norain_2.png",
    ),
    (
        "RainKITTI2015",
        "image_2_3_rain50/000000_00_rain_3_50.jpg",
        "image_2_3_norain/000000_00_norain_3.png",
    ),
]


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(("layout", "rainy", "clean"), FORMS)
def test_form(tmp_path: Path, layout: str, rainy: str, clean: str):
    _touch(tmp_path, rainy, clean)
    (pair,) = match(tmp_path, layout).complete()
    assert (pair.lq, pair.gt) == (tmp_path / rainy, tmp_path / clean)


def test_every_layout_is_tried():
    assert {layout for layout, *_ in FORMS} == set(deraining.LAYOUTS)
    assert deraining.LAYOUTS.items() <= LAYOUTS.items()


def test_sides(tmp_path: Path):
    _touch(tmp_path, "1.jpg")
    assert match(tmp_path, "Rain800").pairs[0].lq_side == "right"
    assert match(tmp_path, "DID-MDN").pairs[0].lq_side == "left"


def test_many_rainy_images_share_a_clean_one(tmp_path: Path):
    _touch(tmp_path, *(f"rainy_image/{i}_{k}.jpg" for i in (901, 902) for k in range(1, 15)))
    _touch(tmp_path, "ground_truth/901.jpg", "ground_truth/902.jpg")
    pairs = match(tmp_path, "Rain1400").complete()
    assert len(pairs) == 28
    assert all(pair.gt.stem == pair.name.split("_")[0] for pair in pairs)
    assert [pair.name for pair in pairs[:3]] == ["901_1", "901_2", "901_3"]


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("folder", "layout", "count"),
    [
        ("Rain100L", "Rain100L", 100),
        ("RainTrainL", "RainTrainL", 200),
        ("samples/Rain200L/train", "Rain200L", 2),
        ("samples/Rain200H/test", "Rain200H", 3),
        ("samples/SPA-Data", "SPA-Data", 2),
        ("samples/RainDrop", "RainDrop", 4),
        ("samples/Rain1400_DDN", "DDN", 3),
    ],
)
def test_real_folders(shared_data: Path, folder: str, layout: str, count: int):
    assert len(match(shared_data / folder, layout).complete()) == count
