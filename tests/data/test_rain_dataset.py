from __future__ import annotations

import numpy as np
import pytest

from basicsr.data import ImagePair, build_dataset
from basicsr.io.images import read_image
from basicsr.utils.errors import DataError, OptionsError


def _synthetic(**options):
    return build_dataset({"type": "SyntheticRainDataset", **options})


def test_samples_are_fixed_by_the_seed(make_images):
    root = make_images((f"{i}.png" for i in range(3)), height=64, width=64)
    source, again, other = (_synthetic(dataroot_gt=str(root), seed=seed) for seed in (5, 5, 6))
    for index in range(3):
        lq, gt = source.sample(index)
        np.testing.assert_array_equal(gt, read_image(root / f"{index}.png"))
        np.testing.assert_array_equal(lq, source.sample(index).lq)
        np.testing.assert_array_equal(lq, again.sample(index).lq)
        assert (lq != other.sample(index).lq).any()
        assert (lq != gt).any()
    assert source.synthetic
    assert source.has_gt


def test_presets_differ_in_strength(make_images):
    root = make_images(["1.png"], height=64, width=64)
    light, heavy = (
        _synthetic(dataroot_gt=str(root), rain=preset).sample(0) for preset in ("light", "heavy")
    )
    assert np.ptp(heavy.lq.astype(int) - heavy.gt) > np.ptp(light.lq.astype(int) - light.gt)


def test_files_are_names_or_patterns(make_images):
    root = make_images(["a/1.png", "a/2.png", "b/1.png", "c.png"])
    options = {"dataroot_gt": str(root)}
    assert _synthetic(files=("a/*", "c.png"), **options).names == ["a/1", "a/2", "c"]
    assert _synthetic(**options).names == ["a/1", "a/2", "b/1", "c"]


def test_files_of_a_text_file(make_images, tmp_path):
    root = make_images(["a/1.png", "a/2.png", "b/1.png", "c.png"])
    names = tmp_path / "names.txt"
    names.write_text("a/2.png\n\nb/*\n")
    assert _synthetic(dataroot_gt=str(root), files=str(names)).names == ["a/2", "b/1"]
    names.write_text("\n")
    with pytest.raises(DataError, match="contains no name of an image"):
        _synthetic(dataroot_gt=str(root), files=str(names))
    with pytest.raises(DataError, match=r"nothing\.txt: not a text file with names of images"):
        _synthetic(dataroot_gt=str(root), files=str(tmp_path / "nothing.txt"))


def test_a_file_that_is_not_there_names_the_nearest(make_images):
    root = make_images(["chelsea.png"])
    with pytest.raises(DataError) as caught:
        _synthetic(dataroot_gt=str(root), files=("chelsae.png",))
    assert str(caught.value) == (
        f"{root}: no image is called 'chelsae.png' (did you mean 'chelsea.png'?)"
    )


def test_split(make_images):
    root = make_images(f"{i}.png" for i in range(1, 12))
    train, val = (_synthetic(dataroot_gt=str(root), split=split) for split in ("train", "val"))
    assert val.names == ["1", "11"]
    assert not set(train.names) & set(val.names)


def test_photographs_of_scikit_image():
    source = _synthetic(dataroot_gt="skimage", files=("astronaut.png", "coffee.png"))
    assert source.names == ["astronaut", "coffee"]
    assert source.sample(0).lq.shape == (512, 512, 3)


def test_training_patches_are_scaled_but_whole_images_are_not(make_images):
    root = make_images(["1.png"], height=64, width=64)
    plain = _synthetic(dataroot_gt=str(root), rain="none")
    image = plain.sample(0).gt
    patch = ImagePair(image[:32, :32], image[:32, :32])
    details = {}
    for scale in (0.5, 1.0, 2.0):
        dataset = _synthetic(dataroot_gt=str(root), rain="none", scale=(scale, scale))
        np.testing.assert_array_equal(dataset.sample(0).gt, image)
        lq, gt = dataset.degrade(0, patch, np.random.default_rng(0))
        np.testing.assert_array_equal(lq, gt)
        assert gt.shape == (32, 32, 3)
        details[scale] = gt
    np.testing.assert_array_equal(details[1.0], patch.gt)
    # an enlarged part has 16 rows of the image, a reduced one all 64
    assert np.abs(np.diff(details[2.0].astype(int), axis=0)).mean() < (
        0.75 * np.abs(np.diff(patch.gt.astype(int), axis=0)).mean()
    )
    halves = image.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    assert min(np.abs(details[0.5] - each).max() for each in (halves, halves[:, ::-1])) <= 1


def test_images_smaller_than_the_reduced_patch_are_used_whole(make_images):
    root = make_images(["1.png"], height=20, width=30)
    dataset = _synthetic(dataroot_gt=str(root), scale=(0.25, 0.25))
    patch = dataset.read(0).gt[:16, :16]
    lq, gt = dataset.degrade(0, ImagePair(patch, patch), np.random.default_rng(0))
    assert lq.shape == gt.shape == (16, 16, 3)


def test_rainy_and_clean_image_pass_through_the_same_camera(make_images):
    root = make_images(["1.png"], height=64, width=64)
    options = {"dataroot_gt": str(root), "rain": "none"}
    image = _synthetic(**options).sample(0).gt
    changed = 0
    for seed in range(40):
        lq, gt = _synthetic(**options, camera=0.5, seed=seed).sample(0)
        np.testing.assert_array_equal(lq, gt)
        changed += bool((gt != image).any())
    assert 10 <= changed <= 30


def test_a_reversed_range_of_scales_is_an_error(make_images):
    root = make_images(["1.png"])
    with pytest.raises(OptionsError, match=r"scale: 2\.0 to 1\.0 is no range"):
        _synthetic(dataroot_gt=str(root), scale=(2.0, 1.0))


def test_scale_and_camera_change_the_fingerprint(make_images):
    root = make_images(["1.png"])
    variants = [{}, {"scale": (0.5, 2.0)}, {"camera": 0.5}]
    prints = {
        _synthetic(dataroot_gt=str(root), **options).fingerprint()["sha256"] for options in variants
    }
    assert len(prints) == 3
