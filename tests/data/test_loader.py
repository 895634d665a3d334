from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.data import (
    ImagePair,
    LoaderSettings,
    RestorationDataset,
    SampleStage,
    SyntheticRainDataset,
    build_dataset,
    training_batches,
)
from basicsr.data.loader import _BatchLayout
from basicsr.data.sampling import Draw, SampleSchedule
from basicsr.utils.errors import DataError, OptionsError

STAGES = [SampleStage(size=8, batch_size=4, iters=5), SampleStage(size=12, batch_size=2, iters=4)]


@pytest.fixture
def source(make_images) -> SyntheticRainDataset:
    root = make_images((f"{i}.png" for i in range(7)), height=20, width=24)
    return SyntheticRainDataset(str(root))


def _batches(source, start: int = 0, **changes):
    settings = LoaderSettings(**{"patches": STAGES, "seed": 3, **changes})
    return list(training_batches(source, settings, start))


def _assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.names == other.names
        torch.testing.assert_close(batch.lq, other.lq, rtol=0, atol=0)
        torch.testing.assert_close(batch.gt, other.gt, rtol=0, atol=0)


def test_shapes_follow_the_schedule(source):
    batches = _batches(source)
    assert [tuple(batch.lq.shape) for batch in batches] == [(4, 3, 8, 8)] * 5 + [(2, 3, 12, 12)] * 4
    assert all(batch.lq.dtype == batch.gt.dtype == torch.uint8 for batch in batches)
    assert [len(batch.names) for batch in batches] == [4] * 5 + [2] * 4
    assert any((batch.lq != batch.gt).any() for batch in batches)  # it rains


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_number_of_workers_changes_nothing(source, num_workers):
    _assert_same(_batches(source), _batches(source, num_workers=num_workers))


@pytest.mark.parametrize("start", [1, 4, 5, 7, 9])
def test_a_run_is_resumed_exactly(source, start):
    _assert_same(_batches(source)[start:], _batches(source, start=start))


def test_ranks_and_micro_batches_share_a_batch(source):
    whole = _batches(source)
    parts = [
        _batches(source, rank=rank, world_size=2, micro_batches=m) for m, rank in ((1, 0), (1, 1))
    ]
    for batch, first, second in zip(whole, *parts, strict=True):
        assert batch.names == first.names + second.names
        assert torch.equal(batch.lq, torch.cat([first.lq, second.lq]))
    halves = _batches(source, micro_batches=2)
    for i, batch in enumerate(whole):
        assert torch.equal(batch.lq, torch.cat([half.lq for half in halves[2 * i : 2 * i + 2]]))


def test_seeds_and_epochs_differ(source):
    first, other = _batches(source), _batches(source, seed=4)
    assert not torch.equal(first[0].gt, other[0].gt)
    patches = [patch for batch in first[:5] for patch in zip(batch.names, batch.gt, strict=True)]
    for name in source.names:  # 20 samples of 7 images: each is seen at least twice
        one, two, *_ = (patch for its_name, patch in patches if its_name == name)
        assert not torch.equal(one, two)


def test_the_global_random_stream_is_left_alone(source):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    _batches(source, num_workers=1)
    assert torch.equal(torch.get_rng_state(), before)


stages = st.lists(
    st.tuples(st.integers(1, 9), st.sampled_from([4, 8, 12]), st.integers(0, 9)).map(
        lambda row: SampleStage(*row)
    ),
    min_size=1,
    max_size=3,
)


@settings(deadline=None, max_examples=50)
@given(stages, st.integers(1, 30), st.integers(0, 2**40), st.sampled_from([1, 2, 4]), st.data())
def test_samples_are_a_function_of_seed_and_position(rows, length, seed, shares, data):
    whole = list(SampleSchedule(rows, length, seed))
    samples = [draw for batch in whole for draw in batch]
    for epoch in range(len(samples) // length):
        draws = samples[epoch * length : (epoch + 1) * length]
        assert {draw.epoch for draw in draws} == {epoch}
        assert {draw.image for draw in draws} == set(range(length))  # no repeats

    start = data.draw(st.integers(0, len(whole)))
    ranks = [
        list(SampleSchedule(rows, length, seed, start=start, rank=rank, world_size=shares))
        for rank in range(shares)
    ]
    joined = [[draw for part in parts for draw in part] for parts in zip(*ranks, strict=True)]
    assert joined == whole[start:]

    micro = list(SampleSchedule(rows, length, seed, start=start, micro_batches=shares))
    assert [draw for part in micro for draw in part] == [
        draw for batch in whole[start:] for draw in batch
    ]


def test_epochs_have_different_orders():
    orders = Counter(
        tuple(draw.image for draw in batch)
        for batch in SampleSchedule([SampleStage(8, 20, 10)], length=20, seed=0)
    )
    assert len(orders) == 10


def test_the_order_never_changes():
    (batch,) = SampleSchedule([SampleStage(8, 5, 1)], length=5, seed=1)
    assert batch == [Draw(0, image, 8) for image in (1, 4, 3, 0, 2)]


def test_patches_never_change(make_images):
    """Resumed runs must see the same patches, however the loader changes."""
    root = make_images((f"{s}/{i}.png" for s in ("rain", "norain") for i in range(5)), 20, 30)
    source = build_dataset(
        {"type": "PairedImageDataset", "dataroot": str(root), "layout": "RainTrainL"}
    )
    seen = hashlib.sha256()
    for batch in _batches(source, patches=[SampleStage(8, 4, 20), SampleStage(24, 4, 5)]):
        for patches in (batch.lq, batch.gt):
            seen.update(patches.contiguous().numpy().tobytes())
        seen.update(" ".join(batch.names).encode())
    assert seen.hexdigest() == ("46bc8aab670f7d4d4050314a6a44843a61fb893c4cf433e3b2e75adcb8a0433b")


def test_a_batch_belongs_to_the_receiver(source):
    """The shared memory of the workers is reused."""
    batches = training_batches(source, LoaderSettings(STAGES, seed=3, num_workers=2))
    first = next(batches)
    kept = first.lq.clone()
    _ = list(batches)
    assert torch.equal(first.lq, kept)
    assert first.lq.is_contiguous(memory_format=torch.channels_last)


def test_a_batch_that_cannot_be_shared(source):
    with pytest.raises(OptionsError) as caught:
        _batches(source, world_size=3, micro_batches=2)
    assert str(caught.value) == (
        "patches: batch_size 4 cannot be shared by 3 ranks x 2 micro-batches; use a multiple of 6"
    )


def test_images_without_ground_truth_cannot_be_trained_on(make_images):
    root = make_images(["1.png"])
    source = build_dataset({"type": "ImageFolderDataset", "dataroot_lq": str(root)})
    with pytest.raises(OptionsError, match="ImageFolderDataset has no ground truth to train on"):
        _batches(source)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_image_is_one_line(make_images, num_workers):
    root = make_images(["rain/1.png", "norain/1.png"])
    path = root / "norain/1.png"
    Path(path).write_bytes(path.read_bytes()[:90])
    options = {"type": "PairedImageDataset", "dataroot": str(root), "layout": "RainTrainL"}
    with pytest.raises(DataError) as caught:
        _batches(build_dataset(options), num_workers=num_workers)
    assert str(caught.value).startswith(f"{path}: cannot be decoded (")
    assert "\n" not in str(caught.value)


def test_rain_is_added_after_flips_and_rotations(make_images):
    """Streaks stay upright in every orientation of the photograph."""
    root = make_images(["1.png"], height=64, width=64)
    source = SyntheticRainDataset(str(root), rain="light")
    batches = _batches(source, patches=[SampleStage(64, 16, 2)])
    rain = torch.cat([batch.lq.float() - batch.gt.float() for batch in batches]).mean(1)
    down, across = (rain.diff(dim=dim).abs().mean() for dim in (1, 2))
    assert down < 0.8 * across
    assert np.isfinite(float(down))


class Announced(RestorationDataset):
    """Images of given channels and types, each value different from its neighbours."""

    def __init__(self, lq: tuple[int, type], gt: tuple[int, type]) -> None:
        self.names = [str(number) for number in range(5)]
        self.lq_channels, self.gt_channels = lq[0], gt[0]
        self.types = np.dtype(lq[1]), np.dtype(gt[1])

    @property
    def lq_dtype(self) -> np.dtype:
        return self.types[0]

    @property
    def gt_dtype(self) -> np.dtype:
        return self.types[1]

    def files(self, index: int) -> list[Path]:
        return []

    def read(self, index: int) -> ImagePair:
        return ImagePair(
            self._image(index, self.lq_channels, self.lq_dtype),
            self._image(index, self.gt_channels, self.gt_dtype),
        )

    def _image(self, index: int, channels: int, dtype: np.dtype) -> np.ndarray:
        """Return an image whose first channel numbers the pixels, and the others follow from it."""
        levels = np.arange(13 * 15).reshape(13, 15, 1) + 7 * np.arange(channels) + index
        return levels.astype(dtype) / dtype.type(3) if dtype == np.float32 else levels.astype(dtype)


FORMATS = [
    ((6, np.uint8), (3, np.uint8)),
    ((1, np.uint8), (1, np.uint8)),
    ((6, np.uint16), (3, np.uint16)),
    ((1, np.float32), (1, np.uint8)),
    ((3, np.float32), (3, np.uint16)),
    ((1, np.uint8), (3, np.float32)),
    ((5, np.uint8), (7, np.uint16)),
]


@pytest.mark.parametrize(("lq", "gt"), FORMATS)
def test_any_channels_and_types(lq, gt):
    dataset = Announced(lq, gt)
    stages = [SampleStage(5, 2, 4), SampleStage(17, 4, 3)]  # 17 is more than the images have
    batches = _batches(dataset, patches=stages)
    assert [tuple(batch.lq.shape) for batch in batches] == (
        [(2, lq[0], 5, 5)] * 4 + [(4, lq[0], 17, 17)] * 3
    )
    for batch in batches:
        assert batch.gt.shape[1] == gt[0]
        assert batch.lq.is_contiguous(memory_format=torch.channels_last)
        for side, (_, dtype) in ((batch.lq.numpy(), lq), (batch.gt.numpy(), gt)):
            assert side.dtype == dtype
            scale = 3 if dtype == np.float32 else 1
            steps = np.diff(side.astype(float), axis=1) * scale
            np.testing.assert_allclose(steps, 7, atol=1e-4)
        if lq == gt:
            assert torch.equal(batch.lq, batch.gt)
    _assert_same(batches, _batches(dataset, patches=stages, num_workers=2))


def test_all_orientations_of_both_sides_agree():
    for batch in _batches(
        Announced((1, np.uint16), (6, np.float32)), patches=[SampleStage(5, 8, 20)]
    ):
        lq = batch.lq.numpy()[:, 0].astype(float)
        np.testing.assert_allclose(batch.gt.numpy()[:, 0] * 3, lq, atol=1e-4)


@pytest.mark.parametrize(("lq", "gt"), FORMATS)
def test_the_memory_holds_the_patches_and_no_more(lq, gt):
    layout = _BatchLayout.of(Announced(lq, gt))
    patches = sum(4 * 8 * 8 * channels * np.dtype(dtype).itemsize for channels, dtype in (lq, gt))
    assert patches <= layout.slot_bytes(4, 8) < patches + 8
    if lq[1] == gt[1] == np.uint8:
        assert layout.slot_bytes(3, 7) == 3 * 7 * 7 * (lq[0] + gt[0])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_data_set_that_announces_something_else_is_one_line(num_workers):
    dataset = Announced((1, np.uint8), (3, np.uint8))
    dataset.lq_channels, dataset.read = (
        3,
        lambda index: ImagePair(np.zeros((9, 9, 1), np.uint8), np.zeros((9, 9, 3), np.uint8)),
    )
    with pytest.raises(DataError) as caught:
        _batches(dataset, num_workers=num_workers)
    assert str(caught.value) == (
        "the data set yields lq of (8, 8, 1) uint8, but announces (8, 8, 3) uint8; "
        "correct its lq_channels or lq_dtype"
    )
