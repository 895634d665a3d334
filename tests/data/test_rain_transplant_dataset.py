from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from basicsr.data import LoaderSettings, SampleStage, build_dataset, training_batches
from basicsr.io.images import write_png
from basicsr.utils.errors import DataError, OptionsError

SIZE = 24


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Folder of ten pairs with one gray column each, which adds 100 levels."""
    for number in range(1, 11):
        clean = np.full((SIZE, SIZE, 3), 10 * number, np.uint8)
        rainy = clean.copy()
        rainy[:, number] += 100
        write_png(tmp_path / f"pairs/norain/norain-{number}.png", clean)
        write_png(tmp_path / f"pairs/rain/norain-{number}.png", rainy)
    return tmp_path / "pairs"


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    for number in range(1, 11):
        image = np.full((SIZE, 2 * SIZE, 3), [number, 120, 200], np.uint8)
        write_png(tmp_path / f"photographs/{number}.png", image)
    return tmp_path / "photographs"


def _dataset(photographs: Path, pairs: Path, **options):
    places = {"dataroot_gt": str(photographs), "dataroot": str(pairs), "layout": "RainTrainL"}
    return build_dataset({"type": "RainTransplantDataset", **places, **options})


def test_photographs_get_the_rain_of_other_pairs(photographs, pairs):
    dataset = _dataset(photographs, pairs, rain_scale=(1, 1))
    settings = LoaderSettings([SampleStage(SIZE, 8, 4)])
    batches = list(training_batches(dataset, settings))
    clean, rainy = (
        np.concatenate([getattr(batch, side).numpy().astype(int) for batch in batches])
        for side in ("gt", "lq")
    )
    assert set(clean[:, 0, 0, 0]) <= set(range(1, 11))
    assert (clean[:, 1] == 120).all()
    rain = rainy - clean
    assert set(rain[:, 1].ravel()) == {0, 100}
    assert rain[:, 2].max() == 55  # clipped
    assert (rain[:, 1, 0] > 0).sum(axis=1).tolist() == [1] * 32
    assert len({int(row.argmax()) for row in rain[:, 1, 0]}) > 5


def test_rain_is_enlarged(photographs, pairs):
    dataset = _dataset(photographs, pairs, rain_scale=(3, 3))
    widths = []
    for seed in range(20):
        pair = dataset.read(0)
        lq, gt = dataset.degrade(0, pair, np.random.default_rng(seed))
        widths.append((lq[0, :, 1].astype(int) - gt[0, :, 1] > 10).sum())
    assert max(widths) >= 3


def test_whole_images_of_any_shape_get_rain_that_the_seed_fixes(photographs, pairs):
    one, two = (_dataset(photographs, pairs, seed=4) for _ in range(2))
    for index in range(3):
        lq, gt = one.sample(index)
        assert lq.shape == gt.shape == (SIZE, 2 * SIZE, 3)
        np.testing.assert_array_equal(lq, two.sample(index).lq)


def test_the_split_is_that_of_photographs_and_pairs(photographs, pairs):
    train, val = (_dataset(photographs, pairs, split=split) for split in ("train", "val"))
    assert val.names == ["1"]
    assert val.donors.names == ["norain-1"]
    assert len(train) == len(train.donors) == 9


def test_a_broken_pair_is_named(photographs, pairs):
    dataset = _dataset(photographs, pairs)
    for file in (pairs / "rain").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"rain/norain-\d+\.png"):
        dataset.degrade(0, dataset.read(0), np.random.default_rng(0))


@pytest.mark.parametrize("mixed", [False, True])
def test_the_fingerprint_covers_the_pairs(photographs, pairs, mixed):
    def fingerprint():
        places = {"dataroot_gt": str(photographs), "dataroot": str(pairs), "layout": "RainTrainL"}
        part = {"type": "RainTransplantDataset", **places}
        options = {"type": "MixedDataset", "parts": [part]} if mixed else part
        return build_dataset(options).fingerprint()

    before = fingerprint()
    assert fingerprint() == before
    write_png(pairs / "rain/norain-7.png", np.full((SIZE, SIZE, 3), 77, np.uint8))
    after = fingerprint()
    assert after["images"] == before["images"] == 10
    assert after["sha256"] != before["sha256"]


def test_gray_photographs(photographs, pairs):
    lq, gt = _dataset(photographs, pairs, color="gray").sample(0)
    assert lq.shape == gt.shape == (SIZE, 2 * SIZE, 1)


def test_a_reversed_range_of_rain_scales_is_an_error(photographs, pairs):
    with pytest.raises(OptionsError, match=r"rain_scale: 3\.0 to 1\.0 is no range"):
        _dataset(photographs, pairs, rain_scale=(3.0, 1.0))
