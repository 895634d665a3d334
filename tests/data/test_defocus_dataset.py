from __future__ import annotations

import numpy as np
import pytest
import torch

from basicsr.data import LoaderSettings, SampleStage, build_dataset, training_batches
from basicsr.data.degradations.linear_light import to_linear
from basicsr.io.images import read_image


def _defocused(root, **options):
    return build_dataset({"type": "SyntheticDefocusDataset", "dataroot_gt": str(root), **options})


@pytest.mark.parametrize("views", ["single", "dual"])
def test_samples_are_fixed_by_the_seed(make_images, views):
    root = make_images((f"{i}.png" for i in range(2)), height=64, width=72)
    source, again, other = (_defocused(root, views=views, seed=seed) for seed in (5, 5, 6))
    for index in range(2):
        lq, gt = source.sample(index)
        np.testing.assert_array_equal(gt, read_image(root / f"{index}.png"))
        assert lq.shape == (64, 72, source.lq_channels)
        np.testing.assert_array_equal(lq, source.sample(index).lq)
        np.testing.assert_array_equal(lq, again.sample(index).lq)
        assert (lq != other.sample(index).lq).any()
        assert lq.std() < gt.std()
    assert source.synthetic


def test_both_views_average_to_the_single_one(make_images):
    root = make_images(["1.png"], height=64, width=64)
    options = {"bit_depth": 16, "depth_scale": 30, "max_radius": 5}
    single = _defocused(root, **options)
    dual = _defocused(root, views="dual", **options)
    assert (single.lq_channels, dual.lq_channels, dual.gt_channels) == (3, 6, 3)
    both = to_linear(dual.sample(0).lq)
    left, right = both[..., :3], both[..., 3:]
    assert np.abs(left - right).max() > 0.05
    np.testing.assert_allclose((left + right) / 2, to_linear(single.sample(0).lq), atol=1e-4)


def test_16_bits(make_images):
    source = _defocused(make_images(["1.png"], height=40, width=40), views="dual", bit_depth=16)
    lq, gt = source.sample(0)
    assert lq.dtype == gt.dtype == source.lq_dtype == source.gt_dtype == np.uint16
    assert (gt % 257 == 0).all()
    assert (lq % 257 != 0).any()


def test_gray_views_have_a_channel_each(make_images):
    source = _defocused(make_images(["1.png"], height=40, width=40), views="dual", color="gray")
    lq, gt = source.sample(0)
    assert (lq.shape, gt.shape) == ((40, 40, 2), (40, 40, 1))
    assert (source.lq_channels, source.gt_channels) == (2, 1)


def test_options_bound_the_blur(make_images):
    root = make_images(["1.png"], height=48, width=48)
    lq, gt = _defocused(root, max_radius=0).sample(0)
    np.testing.assert_array_equal(lq, gt)
    assert _defocused(root).description != _defocused(root, max_radius=4).description


def test_batches_hold_both_views_in_16_bits(make_images):
    dataset = _defocused(
        make_images(["1.png", "2.png"], height=40, width=40), views="dual", bit_depth=16
    )
    settings = LoaderSettings((SampleStage(16, 2, 1),), num_workers=0)
    (batch,) = training_batches(dataset, settings)
    assert batch.lq.shape == (2, 6, 16, 16)
    assert batch.gt.shape == (2, 3, 16, 16)
    assert batch.lq.dtype == batch.gt.dtype == torch.uint16
    (again,) = training_batches(dataset, settings)
    assert torch.equal(batch.lq, again.lq)
