from __future__ import annotations

import numpy as np

from basicsr.data import build_dataset
from basicsr.io.images import read_image


def _blurred(root, **options):
    return build_dataset({"type": "SyntheticBlurDataset", "dataroot_gt": str(root), **options})


def test_samples_are_fixed_by_the_seed(make_images):
    root = make_images((f"{i}.png" for i in range(3)), height=64, width=64)
    source, again, other = (_blurred(root, seed=seed) for seed in (5, 5, 6))
    for index in range(3):
        lq, gt = source.sample(index)
        np.testing.assert_array_equal(gt, read_image(root / f"{index}.png"))
        np.testing.assert_array_equal(lq, source.sample(index).lq)
        np.testing.assert_array_equal(lq, again.sample(index).lq)
        assert (lq != other.sample(index).lq).any()
        assert lq.std() < 0.8 * gt.std()
    assert source.synthetic
    assert source.has_gt
    assert (source.lq_channels, source.gt_channels) == (3, 3)


def test_patches_are_blurred_anew(make_images):
    source = _blurred(make_images(["1.png"], height=32, width=32))
    rng = np.random.default_rng(0)
    pair = source.read(0)
    one, two = (source.degrade(0, pair, rng) for _ in range(2))
    assert (one.lq != two.lq).any()
    np.testing.assert_array_equal(one.gt, pair.gt)


def test_options_bound_the_blur(make_images):
    root = make_images(["1.png"], height=48, width=48)
    lq, gt = _blurred(root, max_length=0).sample(0)
    np.testing.assert_array_equal(lq, gt)
    rotated = _blurred(root, max_length=0, max_rotation=3).sample(0)
    assert (rotated.lq != gt).any()
    assert _blurred(root).description != _blurred(root, max_length=8).description


def test_gray_and_16_bit(make_images):
    root = make_images(["1.png"], height=48, width=48)
    source = _blurred(root, color="gray", bit_depth=16)
    lq, gt = source.sample(0)
    assert lq.shape == gt.shape == (48, 48, 1)
    assert lq.dtype == gt.dtype == source.lq_dtype == source.gt_dtype == np.uint16
    assert (lq % 257 != 0).any()  # levels between those of 8 bits
    assert source.lq_channels == 1
