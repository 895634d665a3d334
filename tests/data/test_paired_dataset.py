from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.data import build_dataset
from basicsr.data.sampling import choose
from basicsr.io.images import read_image, write_png
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
        {"dataroot_lq": "x", "dataroot_gt": "x"},
        {"dataroot": "x", "layout": "RainTrainL", "meta_info_file": "y"},
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


def _image(path: Path, channels: int, dtype: type, size: tuple[int, int] = (6, 8)) -> np.ndarray:
    levels = np.iinfo(dtype).max + 1
    image = np.random.default_rng(7).integers(0, levels, (*size, channels), dtype)
    write_png(path, image)
    return image


def test_two_views_make_six_channels(make_images):
    root = make_images([f"{folder}/{i}.png" for folder in "abc" for i in range(2)])
    folders = [str(root / "a"), str(root / "b")]
    dataset = _paired(dataroot_lq=folders, dataroot_gt=str(root / "c"))
    assert (dataset.lq_channels, dataset.gt_channels) == (6, 3)
    lq, gt = dataset.sample(1)
    np.testing.assert_array_equal(lq[..., :3], read_image(root / "a/1.png"))
    np.testing.assert_array_equal(lq[..., 3:], read_image(root / "b/1.png"))
    np.testing.assert_array_equal(gt, read_image(root / "c/1.png"))
    assert dataset.files(1) == tuple(root / f"{folder}/1.png" for folder in "abc")
    swapped = _paired(dataroot_lq=folders[::-1], dataroot_gt=str(root / "c"))
    assert swapped.fingerprint() != dataset.fingerprint()


def test_views_of_different_sizes_name_both_files(make_images):
    make_images(["left/1.png", "gt/1.png"])
    root = make_images(["right/1.png"], height=7)
    folders = [str(root / "left"), str(root / "right")]
    with pytest.raises(DataError) as caught:
        _paired(dataroot_lq=folders, dataroot_gt=str(root / "gt")).sample(0)
    assert str(caught.value) == (
        f"{root}/left/1.png is 8x6 but {root}/right/1.png is 8x7; both views must have one size"
    )


def test_a_view_without_its_partner_is_named(make_images):
    root = make_images(["left/1.png", "left/2.png", "right/1.png", "gt/1.png", "gt/2.png"])
    folders = [str(root / "left"), str(root / "right")]
    with pytest.raises(DataError, match=r"^1 lq images without a partner \(.*/left/2\.png\) and 0"):
        _paired(dataroot_lq=folders, dataroot_gt=str(root / "gt"))


def test_defaults_are_rgb_of_eight_bits(tmp_path: Path):
    _image(tmp_path / "lq/1.png", 1, np.uint8)
    _image(tmp_path / "gt/1.png", 3, np.uint8)
    dataset = _paired(dataroot_lq=str(tmp_path / "lq"), dataroot_gt=str(tmp_path / "gt"))
    lq, gt = dataset.sample(0)
    assert lq.shape == gt.shape == (6, 8, 3)
    assert (dataset.lq_channels, dataset.gt_channels, dataset.bit_depth) == (3, 3, 8)
    assert dataset.lq_dtype == dataset.gt_dtype == lq.dtype == gt.dtype == np.uint8


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_channels_and_depth_as_stored(tmp_path: Path, cache: str):
    expected_lq = _image(tmp_path / "lq/1.png", 1, np.uint16)
    expected_gt = _image(tmp_path / "gt/1.png", 3, np.uint16)
    dataset = _paired(
        dataroot_lq=str(tmp_path / "lq"),
        dataroot_gt=str(tmp_path / "gt"),
        color="as_stored",
        bit_depth="as_stored",
        cache=cache,
    )
    lq, gt = dataset.sample(0)
    np.testing.assert_array_equal(lq, expected_lq)
    np.testing.assert_array_equal(gt, expected_gt)
    assert (dataset.lq_channels, dataset.gt_channels, dataset.bit_depth) == (1, 3, 16)
    assert dataset.lq_dtype == dataset.gt_dtype == np.uint16


@pytest.mark.parametrize(
    ("channels", "dtype", "has"),
    [(3, np.uint8, "3 channels of 8 bits"), (1, np.uint16, "1 channel of 16 bits")],
)
def test_files_that_disagree_are_one_line(tmp_path: Path, channels, dtype, has):
    for side in ("lq", "gt"):
        _image(tmp_path / side / "1.png", 1, np.uint8)
        _image(tmp_path / side / "2.png", channels, dtype)
    folders = {"dataroot_lq": str(tmp_path / "lq"), "dataroot_gt": str(tmp_path / "gt")}
    dataset = _paired(**folders, color="as_stored", bit_depth="as_stored")
    dataset.sample(0)
    with pytest.raises(DataError) as caught:
        dataset.sample(1)
    assert str(caught.value) == (
        f"{tmp_path}/lq/2.png: has {has}, but {tmp_path}/lq/1.png has 1 channel of 8 bits; "
        "set color and bit_depth"
    )
    _paired(**folders, color="gray", bit_depth=8).check()


def test_sides_of_different_depth_are_one_line(tmp_path: Path):
    _image(tmp_path / "lq/1.png", 3, np.uint8)
    _image(tmp_path / "gt/1.png", 3, np.uint16)
    folders = {"dataroot_lq": str(tmp_path / "lq"), "dataroot_gt": str(tmp_path / "gt")}
    with pytest.raises(DataError) as caught:
        _paired(**folders, bit_depth="as_stored")
    assert str(caught.value) == (
        f"{tmp_path}/lq/1.png has 8 bits per channel but {tmp_path}/gt/1.png has 16; "
        "set bit_depth: 8 or 16"
    )
    assert _paired(**folders, bit_depth=16).sample(0).lq.dtype == np.uint16


def test_a_broken_first_file_does_not_decide_the_format(tmp_path: Path):
    for side in ("lq", "gt"):
        _image(tmp_path / side / "2.png", 1, np.uint16)
        (tmp_path / side / "1.png").write_bytes(b"")
    dataset = _paired(
        dataroot_lq=str(tmp_path / "lq"),
        dataroot_gt=str(tmp_path / "gt"),
        color="as_stored",
        bit_depth="as_stored",
    )
    assert (dataset.lq_channels, dataset.bit_depth) == (1, 16)
    with pytest.raises(DataError, match=r"lq/1\.png: not a readable image"):
        dataset.sample(0)


def test_sixteen_bits_read_as_eight_are_announced_once(tmp_path: Path, caplog):
    for side in ("lq", "gt"):
        for number in (1, 2):
            _image(tmp_path / side / f"{number}.png", 3, np.uint16)
    folders = {"dataroot_lq": str(tmp_path / "lq"), "dataroot_gt": str(tmp_path / "gt")}
    with caplog.at_level(logging.WARNING, "basicsr"):
        _paired(**folders, bit_depth=16).check()
        assert caplog.messages == []
        _paired(**folders).check()
        _paired(**folders, split="val")
    assert caplog.messages == [
        f"{tmp_path}/lq/1.png: has 16 bits per channel and is read as 8-bit; "
        "set bit_depth: 16 to keep them"
    ]


def test_halves_of_gray_images_of_sixteen_bits(tmp_path: Path):
    both = _image(tmp_path / "1.png", 1, np.uint16)
    dataset = _paired(dataroot=str(tmp_path), layout="DID-MDN", color="gray", bit_depth=16)
    lq, gt = dataset.sample(0)
    np.testing.assert_array_equal(np.concatenate([lq, gt], axis=1), both)


def test_a_folder_of_gray_images(tmp_path: Path):
    image = _image(tmp_path / "1.png", 1, np.uint16)
    options = {"type": "ImageFolderDataset", "dataroot_lq": str(tmp_path)}
    dataset = build_dataset({**options, "color": "as_stored", "bit_depth": "as_stored"})
    np.testing.assert_array_equal(dataset.sample(0).lq, image)
    assert (dataset.lq_channels, dataset.bit_depth, dataset.lq_dtype) == (1, 16, np.uint16)
