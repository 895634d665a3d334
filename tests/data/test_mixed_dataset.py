from __future__ import annotations

import numpy as np
import pytest
import torch

from basicsr.data import LoaderSettings, SampleStage, build_dataset, training_batches


@pytest.fixture
def parts(make_images):
    files = [f"{folder}/{i}.png" for folder in ("rainy", "clean", "photographs") for i in range(3)]
    root = make_images(files, height=20, width=24)
    rainy, clean, photographs = (root / folder for folder in ("rainy", "clean", "photographs"))
    return (
        {"type": "PairedImageDataset", "dataroot_lq": str(rainy), "dataroot_gt": str(clean)},
        {"type": "SyntheticRainDataset", "dataroot_gt": str(photographs), "rain": "heavy"},
        {"type": "SyntheticRainDataset", "dataroot_gt": str(photographs), "rain": "misty"},
    )


def test_a_mixture_is_the_images_of_its_parts_one_after_the_other(parts):
    mixed = build_dataset({"type": "MixedDataset", "parts": parts})
    assert mixed.names == ["1/0", "1/1", "1/2", "2/0", "2/1", "2/2", "3/0", "3/1", "3/2"]
    alone = [build_dataset(part) for part in parts]
    images = [(part, index) for part in alone for index in range(len(part))]
    for index, (part, its_index) in enumerate(images):
        assert mixed.files(index) == part.files(its_index)
        for got, expected in zip(mixed.sample(index), part.sample(its_index), strict=True):
            np.testing.assert_array_equal(got, expected)
    assert mixed.has_gt
    assert mixed.synthetic
    mixed.check()


def test_training_draws_the_rain_of_the_part(parts):
    mixed = build_dataset({"type": "MixedDataset", "parts": parts})
    batches = training_batches(mixed, LoaderSettings([SampleStage(16, 1, 18)], seed=3))
    seen = {}
    for batch in batches:
        seen.setdefault(batch.names[0], []).append((batch.lq, batch.gt))
    assert sorted(seen) == sorted(mixed.names)
    heavy, misty = (seen[name][0] for name in ("2/0", "3/0"))
    assert not torch.equal(heavy[0] - heavy[1], misty[0] - misty[1])
    for name in ("2/0", "3/1"):
        first, second = seen[name]
        assert not torch.equal(first[0], second[0])


def test_the_fingerprint_knows_the_rain_of_each_part(parts):
    mixed = build_dataset({"type": "MixedDataset", "parts": parts})
    other = build_dataset({"type": "MixedDataset", "parts": (*parts[:2], parts[1])})
    assert mixed.fingerprint()["images"] == other.fingerprint()["images"] == 9
    assert mixed.fingerprint()["sha256"] != other.fingerprint()["sha256"]
