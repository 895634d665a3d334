from __future__ import annotations

import numpy as np
import pytest

from basicsr.data import build_dataset


def test_regions_are_float_and_named_as_in_the_benchmark(tmp_path):
    h5py = pytest.importorskip("h5py")
    images = [np.random.default_rng(seed).random((20, 30, 3), np.float32) for seed in range(2)]
    (tmp_path / "images_srgb").mkdir()
    with h5py.File(tmp_path / "info.mat", "w") as file:
        cell = file.create_dataset("info/boundingboxes", (1, 2), h5py.ref_dtype)
        for number in range(2):
            table = np.array([[1.0, 1, 8, 8], [13, 23, 20, 30]])
            cell[0, number] = file.create_dataset(f"#refs#/{number}", data=table.T).ref
    for number, image in enumerate(images, 1):
        with h5py.File(tmp_path / "images_srgb" / f"{number:04d}.mat", "w") as file:
            file["InoisySRGB"] = image.T

    dataset = build_dataset({"type": "DNDDataset", "dataroot": str(tmp_path)})
    assert dataset.names == ["0001_01", "0001_02", "0002_01", "0002_02"]
    assert not dataset.has_gt
    assert dataset.lq_dtype == np.float32
    lq, gt = dataset.sample(3)
    assert gt is None
    np.testing.assert_array_equal(lq, images[1][12:20, 22:30])
    assert [path.name for path in dataset.files(3)] == ["info.mat", "0002.mat"]
