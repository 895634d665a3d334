from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from basicsr.io.mat_blocks import (
    Box,
    DndImages,
    SiddBlocks,
    write_dnd_submission,
    write_sidd_result,
)
from basicsr.utils.errors import DataError, UserError


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "dtpnet-derain"


def _blocks(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, 4, 8, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize("compressed", [True, False])
def test_blocks_are_those_of_the_array(tmp_path, cache, compressed):
    path = tmp_path / "ValidationNoisyBlocksSrgb.mat"
    savemat(path, {"ValidationNoisyBlocksSrgb": _blocks()}, do_compression=compressed)
    read = SiddBlocks(path)
    assert read.variable == "ValidationNoisyBlocksSrgb"
    assert read.shape == (3, 4, 8, 9, 3)
    assert len(read) == 12
    assert not cache.exists()  # only the header is read so far
    for image in range(3):
        for block in range(4):
            np.testing.assert_array_equal(read[image, block], _blocks()[image, block])
    assert read[2, 1].flags.c_contiguous
    assert read[2, 1].dtype == np.uint8
    assert read[2, 1].flags.writeable


def test_large_arrays_are_converted_in_steps(tmp_path, cache):
    blocks = np.random.default_rng(1).integers(0, 256, (2, 3, 64, 48, 3), dtype=np.uint8)
    savemat(tmp_path / "large.mat", {"blocks": blocks})
    read = SiddBlocks(tmp_path / "large.mat")
    np.testing.assert_array_equal(read[1, 2], blocks[1, 2])
    np.testing.assert_array_equal(read[0, 0], blocks[0, 0])


def test_a_converted_file_is_used_until_its_source_changes(tmp_path, cache, monkeypatch):
    path = tmp_path / "blocks.mat"
    savemat(path, {"blocks": _blocks(1)})
    np.testing.assert_array_equal(SiddBlocks(path)[1, 1], _blocks(1)[1, 1])
    (converted,) = cache.iterdir()
    with monkeypatch.context() as patched:
        patched.setattr(SiddBlocks, "_load", lambda self: pytest.fail("converted twice"))
        np.testing.assert_array_equal(SiddBlocks(path)[1, 1], _blocks(1)[1, 1])
    savemat(path, {"blocks": _blocks(2), "more": 1.0})
    np.testing.assert_array_equal(SiddBlocks(path)[1, 1], _blocks(2)[1, 1])
    (again,) = cache.iterdir()  # the outdated file is gone
    assert again != converted


def test_threads_convert_a_file_once(tmp_path, cache, monkeypatch):
    path = tmp_path / "blocks.mat"
    savemat(path, {"blocks": _blocks()})
    conversions, load = [], SiddBlocks._load

    def slow_load(self):
        conversions.append(self.path)
        time.sleep(0.05)
        return load(self)

    monkeypatch.setattr(SiddBlocks, "_load", slow_load)
    reader = SiddBlocks(path)
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda block: reader[1, block], range(4)))
    np.testing.assert_array_equal(read, _blocks()[1])
    assert conversions == [path]


def test_an_interrupted_conversion_leaves_nothing(tmp_path, cache, monkeypatch):
    path = tmp_path / "blocks.mat"
    savemat(path, {"blocks": _blocks()})

    def stop(file, array):
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(np, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            SiddBlocks(path)[0, 0]
    assert list(cache.iterdir()) == []
    np.testing.assert_array_equal(SiddBlocks(path)[0, 0], _blocks()[0, 0])


def test_faults_of_block_files_are_named(tmp_path, cache):
    path = tmp_path / "blocks.mat"
    with pytest.raises(DataError, match=r"blocks\.mat: no such file"):
        SiddBlocks(path)
    path.write_bytes(b"\0" * 500)
    with pytest.raises(DataError, match=r"blocks\.mat: not a MATLAB file of version 5"):
        SiddBlocks(path)
    savemat(path, {"images": np.zeros((4, 4))})
    with pytest.raises(DataError, match=r"height x width x 3; found images \(4, 4\)"):
        SiddBlocks(path)
    savemat(path, {"blocks": _blocks()}, do_compression=True)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"is damaged .*; download it again"):
        SiddBlocks(path)[0, 0]


def test_results_are_float_and_unrounded(tmp_path, cache):
    restored = np.random.default_rng(0).random((2, 2, 4, 5, 3), np.float32)
    write_sidd_result(tmp_path / "out" / "Idenoised.mat", restored)
    np.testing.assert_array_equal(
        loadmat(tmp_path / "out" / "Idenoised.mat")["Idenoised"], restored
    )
    np.testing.assert_array_equal(
        SiddBlocks(tmp_path / "out" / "Idenoised.mat")[1, 0], restored[1, 0]
    )


# DND


def _write_dnd(folder: Path, boxes: list[np.ndarray], images: list[np.ndarray]) -> None:
    """Write files of DND's structure; `boxes` as MATLAB sees them, N x 4 counted from 1."""
    h5py = pytest.importorskip("h5py")
    (folder / "images_srgb").mkdir(parents=True)
    with h5py.File(folder / "info.mat", "w", userblock_size=512) as file:
        cell = file.create_dataset("info/boundingboxes", (1, len(boxes)), h5py.ref_dtype)
        for number, table in enumerate(boxes):
            cell[0, number] = file.create_dataset(f"#refs#/{number}", data=table.T).ref
    for number, image in enumerate(images, 1):
        path = folder / "images_srgb" / f"{number:04d}.mat"
        with h5py.File(path, "w", userblock_size=512) as file:
            file["InoisySRGB"] = image.T


@pytest.fixture
def dnd(tmp_path) -> tuple[Path, list[np.ndarray]]:
    """A set of two images, the second of double precision, with two boxes each."""
    rng = np.random.default_rng(0)
    images = [rng.random((20, 30, 3), np.float32), rng.random((24, 18, 3))]
    boxes = [
        np.array([[1, 1, 8, 8], [13, 23, 20, 30]]),
        np.array([[5, 2, 12, 9], [17, 11, 24, 18]]),
    ]
    _write_dnd(tmp_path / "DND", [table.astype(float) for table in boxes], images)
    return tmp_path / "DND", images


def test_crops_are_the_boxes_of_the_images(dnd):
    folder, images = dnd
    read = DndImages(folder)
    assert len(read) == 2
    assert read.boxes[0] == [Box(0, 0, 8, 8), Box(12, 22, 20, 30)]
    assert read.boxes[1] == [Box(4, 1, 12, 9), Box(16, 10, 24, 18)]
    np.testing.assert_array_equal(read.crop(0, 1), images[0][12:20, 22:30])
    crop = read.crop(1, 0)
    assert crop.dtype == np.float32
    assert crop.flags.c_contiguous
    np.testing.assert_array_equal(crop, images[1][4:12, 1:9].astype(np.float32))


def test_a_submission_holds_the_crops(dnd, tmp_path):
    read = DndImages(dnd[0])
    crops = [read.crop(1, box) for box in range(2)]
    write_dnd_submission(tmp_path / "bundle", 1, crops)
    stored = loadmat(tmp_path / "bundle" / "0002.mat")
    assert stored["Idenoised"].shape == (1, 2)
    for box in range(2):
        np.testing.assert_array_equal(stored["Idenoised"][0, box], crops[box])
        assert stored["Idenoised"][0, box].dtype == np.float32
    assert stored["israw"].tolist() == [[0]]
    assert stored["eval_version"].tolist() == ["1.0"]


def test_faults_of_dnd_are_named(dnd, tmp_path):
    folder, _ = dnd
    with pytest.raises(DataError, match=r"info\.mat: no such file"):
        DndImages(tmp_path)
    (folder / "images_srgb" / "0002.mat").unlink()
    with pytest.raises(DataError, match=r"0002\.mat: no such file, but .* boxes of 2 images"):
        DndImages(folder)
    (folder / "images_srgb" / "0002.mat").write_bytes(b"no HDF5")
    with pytest.raises(DataError, match=r"0002\.mat: cannot be read as a MATLAB 7\.3 file"):
        DndImages(folder).crop(1, 0)
    (folder / "info.mat").write_bytes((folder / "images_srgb" / "0001.mat").read_bytes())
    with pytest.raises(DataError, match=r"info\.mat: cannot be read as a MATLAB 7\.3 file"):
        DndImages(folder)


def test_boxes_outside_of_the_image_are_refused(tmp_path):
    image = np.zeros((20, 30, 3), np.float32)
    _write_dnd(tmp_path / "DND", [np.array([[1.0, 1, 8, 31]])], [image])
    with pytest.raises(DataError, match=r"0001\.mat: box 1 ends at \(8, 31\), outside .* 20 x 30"):
        DndImages(tmp_path / "DND").crop(0, 0)


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(UserError, match=r"pip install 'dtpnet-derain\[hdf5\]'"):
        DndImages(tmp_path)
