from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.data import build_dataset
from basicsr.data.sampling import choose
from basicsr.io.images import read_image
from basicsr.utils.errors import DataError, OptionsError


def _paired(**options):
    return build_dataset({"type": "PairedImageDataset", **options})


def test_reads_both_images(make_images):
    root = make_images(["rain/norain-1.png", "norain/norain-1.png"])
    source = _paired(dataroot=str(root), layout="RainTrainL")
    lq, gt = source.sample(0)
    np.testing.assert_array_equal(lq, read_image(root / "rain/norain-1.png"))
    np.testing.assert_array_equal(gt, read_image(root / "norain/norain-1.png"))
    assert (len(source), source.names, source.has_gt, source.synthetic) == (
        1,
        ["norain-1"],
        True,
        False,
    )


def test_reads_the_halves_of_one_image(make_images):
    root = make_images(["1.png"], width=8)
    left, right = np.split(read_image(root / "1.png"), 2, axis=1)
    lq, gt = _paired(dataroot=str(root), layout="Rain800").sample(0)
    np.testing.assert_array_equal(lq, right)
    np.testing.assert_array_equal(gt, left)
    lq, gt = _paired(dataroot=str(root), layout="DID-MDN").sample(0)
    np.testing.assert_array_equal(lq, left)
    np.testing.assert_array_equal(gt, right)


def test_two_folders(make_images):
    root = make_images(["a/1.png", "a/2.png", "b/1.png", "b/2.png"])
    source = _paired(dataroot_lq=str(root / "a"), dataroot_gt=str(root / "b"))
    assert source.names == ["1", "2"]


def test_split_is_fixed_and_disjoint(make_images):
    root = make_images(f"{side}/{i}.png" for side in ("rain", "norain") for i in range(1, 24))
    options = {"dataroot": str(root), "layout": "RainTrainL"}
    train, val = (_paired(split=split, **options).names for split in ("train", "val"))
    assert val == ["1", "11", "21"]
    assert sorted(train + val) == sorted(_paired(**options).names)


def test_split_keeps_all_rain_over_a_clean_image_together(make_images):
    root = make_images(
        [f"rainy_image/{i}_{k}.png" for i in range(1, 12) for k in range(1, 4)]
        + [f"ground_truth/{i}.png" for i in range(1, 12)]
    )
    source = _paired(dataroot=str(root), layout="Rain1400", split="val")
    assert source.names == ["1_1", "1_2", "1_3", "11_1", "11_2", "11_3"]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 60), min_size=2), st.randoms())
def test_split_depends_on_names_only(numbers: list[int], random):
    names = [f"norain-{number}" for number in numbers]
    if len(set(names)) < 2:
        return
    train, val = (set(choose(split, names, names)) for split in ("train", "val"))
    assert train | val == set(names)
    assert not train & val
    shuffled = random.sample(names, len(names))
    assert set(choose("val", shuffled, shuffled)) == val


def test_a_single_image_cannot_be_split(make_images):
    root = make_images(["rain/1.png", "norain/1.png"])
    with pytest.raises(DataError, match=r"split train is empty: .*norain/1\.png; use split: all"):
        _paired(dataroot=str(root), layout="RainTrainL", split="train")


def test_different_sizes_name_both_files(make_images):
    make_images(["rain/1.png"], height=6)
    root = make_images(["norain/1.png"], height=7)
    source = _paired(dataroot=str(root), layout="RainTrainL")
    with pytest.raises(DataError) as caught:
        source.sample(0)
    assert str(caught.value) == (
        f"{root}/rain/1.png is 8x6 but {root}/norain/1.png is 8x7; a pair must have one size"
    )


def test_odd_width_cannot_be_halved(make_images):
    source = _paired(dataroot=str(make_images(["1.png"], width=9)), layout="Rain800")
    with pytest.raises(DataError, match=r"1\.png: two images side by side cannot be 9 pixels wide"):
        source.sample(0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dataroot": "x"},
        {"layout": "RainTrainL"},
        {"dataroot_lq": "x"},
        {"dataroot": "x", "layout": "RainTrainL", "dataroot_gt": "y"},
    ],
)
def test_one_way_to_find_pairs(options):
    with pytest.raises(OptionsError, match="takes dataroot and layout, or dataroot_lq and"):
        _paired(**options)


def test_folder_without_ground_truth(make_images):
    root = make_images(["a/2.png", "a/1.png", "b.png"])
    source = build_dataset({"type": "ImageFolderDataset", "dataroot_lq": str(root)})
    assert source.names == ["a/1", "a/2", "b"]
    lq, gt = source.sample(1)
    np.testing.assert_array_equal(lq, read_image(root / "a/2.png"))
    assert gt is None
    assert not source.has_gt
