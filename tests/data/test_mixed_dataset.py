from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from basicsr.data import LoaderSettings, SampleStage, build_dataset, training_batches
from basicsr.io.images import write_png
from basicsr.utils.errors import OptionsError


@pytest.fixture
def parts(make_images):
    files = [f"{folder}/{i}.png" for folder in ("lq", "gt", "photographs") for i in range(3)]
    root = make_images(files, height=20, width=24)
    lq, gt, photographs = (root / folder for folder in ("lq", "gt", "photographs"))
    return (
        {"type": "PairedImageDataset", "dataroot_lq": str(lq), "dataroot_gt": str(gt)},
        {"type": "SyntheticRainDataset", "dataroot_gt": str(photographs), "rain": "heavy"},
        {"type": "SyntheticRainDataset", "dataroot_gt": str(photographs), "rain": "misty"},
    )


def test_a_mixture_has_the_images_of_its_parts_in_order(parts):
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


def test_training_uses_the_rain_of_each_part(parts):
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


def test_the_fingerprint_covers_the_rain_of_each_part(parts):
    mixed = build_dataset({"type": "MixedDataset", "parts": parts})
    other = build_dataset({"type": "MixedDataset", "parts": (*parts[:2], parts[1])})
    assert mixed.fingerprint()["images"] == other.fingerprint()["images"] == 9
    assert mixed.fingerprint()["sha256"] != other.fingerprint()["sha256"]


def test_any_registered_data_sets_are_mixed(parts, tmp_path):
    noise = {"type": "GaussianNoiseDataset", "dataroot_gt": parts[1]["dataroot_gt"]}
    mixed = build_dataset(
        {"type": "MixedDataset", "parts": ({**noise, "sigma": 15}, {**noise, "sigma": (0, 50)})}
    )
    assert (mixed.lq_dtype, mixed.gt_dtype) == (np.float32, np.uint8)
    settings = LoaderSettings([SampleStage(16, 6, 2)])
    batch, _ = training_batches(mixed, settings)
    assert batch.lq.dtype == torch.float32
    lq = mixed.sample(0).lq
    np.testing.assert_array_equal(lq, build_dataset({**noise, "sigma": 15}).sample(0).lq)


def test_a_mixture_of_gray_dual_view_and_sixteen_bits(tmp_path):
    rng = np.random.default_rng(0)
    for folder, channels in (("left", 3), ("right", 3), ("gt", 3)):
        write_png(tmp_path / folder / "1.png", rng.integers(0, 65536, (20, 24, channels), "uint16"))
    part = {
        "type": "PairedImageDataset",
        "dataroot_lq": (str(tmp_path / "left"), str(tmp_path / "right")),
        "dataroot_gt": str(tmp_path / "gt"),
        "bit_depth": 16,
    }
    mixed = build_dataset({"type": "MixedDataset", "parts": (part, part)})
    assert (mixed.lq_channels, mixed.gt_channels, mixed.bit_depth) == (6, 3, 16)
    assert mixed.sample(1).lq.shape == (20, 24, 6)


def test_parts_of_other_channels_or_types_are_one_line(parts):
    with pytest.raises(OptionsError) as caught:
        build_dataset({"type": "MixedDataset", "parts": (parts[0], {**parts[1], "color": "gray"})})
    assert str(caught.value) == (
        "parts: 2 (SyntheticRainDataset) has lq of 1 x uint8 and gt of 1 x uint8, but 1 "
        "(PairedImageDataset) has lq of 3 x uint8 and gt of 3 x uint8; set color and bit_depth"
    )


def test_parts_need_ground_truth(parts):
    folder = {"type": "ImageFolderDataset", "dataroot_lq": parts[0]["dataroot_lq"]}
    with pytest.raises(
        OptionsError, match=r"^parts: 2 \(ImageFolderDataset\) has no ground truth$"
    ):
        build_dataset({"type": "MixedDataset", "parts": (parts[0], folder)})


def test_options_offer_every_registered_type():
    """Data sets that are registered later, in files of their own, are offered too."""
    program = """
import json
from basicsr.data.base import RestorationDataset
from basicsr.data.rain_dataset import SyntheticRainDataset
from basicsr.utils.registry import DATASET_REGISTRY

@DATASET_REGISTRY.register
class AddedDataset(SyntheticRainDataset):
    pass

from basicsr.options import TrainOptions
print(json.dumps(sorted(TrainOptions.model_json_schema()["$defs"])))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    schema = done.stdout
    assert schema.count("AddedDataset") >= 3  # as train, val and part
    assert schema.count("MixedDataset") < schema.count("AddedDataset")
