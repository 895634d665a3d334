"""Broken files in a training set: reported, or skipped and replaced."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from basicsr.data import (
    BadImages,
    LoaderSettings,
    SampleStage,
    build_dataset,
    training_batches,
)
from basicsr.utils.errors import DataError

NOISE = np.random.default_rng(7).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def _png(path: Path, image: np.ndarray = NOISE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def _truncate(path: Path) -> None:
    path.write_bytes(_png(path).read_bytes()[:2000])


def _training_set(root: Path, images: int = 12) -> None:
    for number in range(images):
        for side in ("rain", "norain"):
            rng = np.random.default_rng(number)
            image = rng.integers(0, 256, (24, 28, 3), dtype=np.uint8)
            _png(root / side / f"{number}.png", image)


def _pairs(root: Path, **options):
    return build_dataset(
        {"type": "PairedImageDataset", "dataroot": str(root), "layout": "RainTrainL", **options}
    )


def _batches(source, bad_images: BadImages | None = None, start: int = 0, **changes):
    settings = LoaderSettings(**{"patches": [SampleStage(8, 4, 9)], "seed": 3, **changes})
    return list(training_batches(source, settings, start, bad_images))


@pytest.fixture
def broken_set(tmp_path: Path) -> Path:
    """Return twelve pairs, four of them broken in different ways."""
    _training_set(tmp_path)
    _truncate(tmp_path / "rain/2.png")
    (tmp_path / "norain/5.png").write_bytes(b"")
    _png(tmp_path / "norain/7.png", NOISE[:20])
    (tmp_path / "rain/8.png").unlink()
    (tmp_path / "rain/8.png").symlink_to("nowhere.png")
    return tmp_path


BAD = {"2", "5", "7", "8"}


def test_bad_images_are_replaced_and_reported(broken_set: Path, caplog):
    bad_images = BadImages(4)
    with caplog.at_level(logging.WARNING, "basicsr"):
        batches = _batches(_pairs(broken_set), bad_images=bad_images)
    assert not {name for batch in batches for name in batch.names} & BAD
    assert set(bad_images.found) == BAD
    rain, norain = broken_set / "rain", broken_set / "norain"
    assert bad_images.found["7"] == (
        f"{rain}/7.png is 28x24 but {norain}/7.png is 64x20; a pair must have one size"
    )
    assert bad_images.found["8"].startswith(f"{rain}/8.png: a link to 'nowhere.png'")
    skips = [name for batch in batches for name, _ in batch.skipped]
    assert len(skips) > 4  # 36 samples are three epochs
    assert len(caplog.records) == 4  # but each is reported once
    assert caplog.messages[0].startswith("image skipped, number 1 of at most 4: ")


def test_bad_images_do_not_change_the_patches_of_others(tmp_path: Path, broken_set: Path):
    _training_set(tmp_path / "whole")
    whole = _batches(_pairs(tmp_path / "whole"))
    repaired = _batches(_pairs(broken_set), bad_images=BadImages(9))
    for batch, other in zip(whole, repaired, strict=True):
        for i, name in enumerate(batch.names):
            if name not in BAD:
                assert other.names[i] == name
                assert torch.equal(batch.lq[i], other.lq[i])


def test_replacements_do_not_depend_on_workers_ranks_or_resuming(broken_set: Path):
    def drawn(**changes):
        return _batches(_pairs(broken_set), bad_images=BadImages(9), **changes)

    whole = drawn()
    for other in (drawn(num_workers=2), drawn(num_workers=1, micro_batches=2)):
        joined = [name for batch in other for name in batch.names]
        assert joined == [name for batch in whole for name in batch.names]
        assert torch.equal(torch.cat([b.lq for b in other]), torch.cat([b.lq for b in whole]))
    for start in (1, 4, 7):
        for batch, other in zip(whole[start:], drawn(start=start), strict=True):
            assert (batch.names, batch.skipped) == (other.names, other.skipped)
            assert torch.equal(batch.lq, other.lq)
    ranks = [drawn(rank=rank, world_size=2) for rank in (0, 1)]
    for batch, first, second in zip(whole, *ranks, strict=True):
        assert batch.names == first.names + second.names
        assert torch.equal(batch.lq, torch.cat([first.lq, second.lq]))


@pytest.mark.parametrize("cache", ["none", "memory"])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_more_bad_images_than_the_limit_stop_training(broken_set: Path, num_workers, cache):
    with pytest.raises(DataError) as caught:
        _batches(_pairs(broken_set, cache=cache), bad_images=BadImages(3), num_workers=num_workers)
    message = str(caught.value)
    assert message.startswith("4 training images cannot be used, and bad_image_limit is 3; repair ")
    assert message.count(str(broken_set)) == 4  # three reasons, one of them with two paths
    assert message.endswith("; ...")
    assert "\n" not in message


def test_a_set_of_bad_images_only(tmp_path: Path):
    _training_set(tmp_path, images=3)
    for number in range(3):
        (tmp_path / "rain" / f"{number}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"^none of the 3 training images can be used: .*/rain/"):
        _batches(_pairs(tmp_path), bad_images=BadImages(100))
    with pytest.raises(DataError, match=r"^3 training images cannot be used.*_limit is 2; "):
        _batches(_pairs(tmp_path), bad_images=BadImages(2))


def test_a_file_that_vanishes_after_the_start(tmp_path: Path):
    _training_set(tmp_path)
    source, bad_images = _pairs(tmp_path), BadImages(1)
    (tmp_path / "norain/4.png").unlink()
    _batches(source, bad_images=bad_images)
    assert list(bad_images.found) == ["4"]
    with pytest.raises(DataError, match=r"norain/4\.png: no such file$"):
        _batches(source)


def test_bad_images_of_ranks_and_of_an_earlier_run_are_merged(caplog):
    bad_images = BadImages(2)
    bad_images.note({"a": "a: broken"}.items())
    bad_images.note([["a", "a: broken"], ["b", "b: broken"]])
    assert bad_images.found == {"a": "a: broken", "b": "b: broken"}
    with pytest.raises(DataError) as caught:
        bad_images.note([("c", "c: broken")])
    assert str(caught.value) == (
        "3 training images cannot be used, and bad_image_limit is 2; repair them, remove them or "
        "raise the limit: a: broken; b: broken; c: broken"
    )


def test_check_reads_every_image(broken_set: Path, tmp_path: Path):
    with pytest.raises(DataError, match=r"rain/2\.png: cannot be decoded"):
        _pairs(broken_set).check()
    _training_set(tmp_path / "whole")
    _pairs(tmp_path / "whole").check()


def test_one_pixel(tmp_path: Path):
    _png(tmp_path / "rain/1.png", NOISE[:1, :1])
    _png(tmp_path / "norain/1.png", NOISE[:1, :1])
    (batch,) = _batches(_pairs(tmp_path), patches=[SampleStage(8, 2, 1)])
    assert (batch.gt == torch.from_numpy(NOISE[0, 0])[:, None, None]).all()


@pytest.mark.parametrize("mixed", [False, True])
def test_broken_donors_of_rain_are_skipped(tmp_path: Path, mixed):
    _training_set(tmp_path, images=4)
    _truncate(tmp_path / "rain/2.png")
    part = {"type": "RainSwapDataset", "dataroot": str(tmp_path), "layout": "RainTrainL"}
    source = build_dataset({"type": "MixedDataset", "parts": [part, part]} if mixed else part)
    bad_images = BadImages(2)
    batches = _batches(source, bad_images=bad_images)
    assert set(bad_images.found) == ({"1/2", "2/2"} if mixed else {"2"})
    for other in (
        _batches(source, bad_images=BadImages(2), num_workers=2),
        _batches(source, bad_images=BadImages(2), start=0),
    ):
        assert [batch.skipped for batch in other] == [batch.skipped for batch in batches]
        assert all(torch.equal(a.lq, b.lq) for a, b in zip(other, batches, strict=True))
    with pytest.raises(DataError, match=r"rain/2\.png: cannot be decoded"):
        _batches(source)
    with pytest.raises(DataError, match="bad_image_limit is 0"):
        _batches(source, bad_images=BadImages(0))
