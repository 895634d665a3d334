"""Images in an LMDB, as BasicSR writes it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from basicsr.io.images import image_format, images_by_stem, read_image
from basicsr.io.stored_files import file_status, lmdb_keys, read_file
from basicsr.utils.errors import DataError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 8, 3), np.uint8)
DEEP = RNG.integers(0, 65536, (5, 7, 3), np.uint16)
GRAY = RNG.integers(0, 256, (4, 9), np.uint8)


@pytest.fixture
def folder(tmp_path: Path, make_lmdb) -> Path:
    return make_lmdb(tmp_path / "images.lmdb", {"1": RGB, "a/2": DEEP, "10": GRAY})


def test_images_are_read_as_from_files(folder):
    images = images_by_stem(folder)
    assert list(images) == ["1", "10", "a/2"]
    assert images["a/2"] == folder / "a/2"
    np.testing.assert_array_equal(read_image(images["1"]), RGB)
    np.testing.assert_array_equal(read_image(images["a/2"], "as_stored", "as_stored"), DEEP)
    np.testing.assert_array_equal(read_image(images["10"], "as_stored"), GRAY[..., None])
    assert image_format(images["a/2"], "rgb", "as_stored") == (5, 7, 3, np.dtype(np.uint16))
    assert image_format(images["10"], "as_stored", "as_stored") == (4, 9, 1, np.dtype(np.uint8))


def test_it_is_read_without_being_changed(folder):
    (folder / "lock.mdb").unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    read_image(folder / "1")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert file_status(folder / "1").size == len(read_file(folder / "1"))
    assert file_status(folder / "1").changed == (folder / "data.mdb").stat().st_mtime_ns
    assert read_file(folder / "1", 4) == b"\x89PNG"


def test_a_forked_process_opens_it_again(folder):
    expected = read_file(folder / "1")
    if (child := os.fork()) == 0:
        os._exit(0 if read_file(folder / "1") == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert read_file(folder / "1") == expected


def test_without_a_list_all_keys_are_used(folder):
    (folder / "meta_info.txt").unlink()
    assert sorted(lmdb_keys(folder)) == ["1", "10", "a/2"]


def test_a_list_with_fewer_names(folder):
    (folder / "meta_info.txt").write_text("10.png (4,9,1) 1\n\n")
    assert lmdb_keys(folder) == ["10"]


def test_faults_name_the_folder(folder, tmp_path, monkeypatch):
    (folder / "meta_info.txt").write_text("1.png (6,8,3) 1\nx.y.png (6,8,3) 1\n")
    with pytest.raises(DataError, match=r"images\.lmdb: has no image 'x\.y', which meta_info"):
        lmdb_keys(folder)
    (folder / "meta_info.txt").write_text("\n")
    with pytest.raises(DataError, match=r"meta_info\.txt: lists no image"):
        lmdb_keys(folder)
    (folder / "meta_info.txt").write_bytes("雨.png".encode("gbk"))
    with pytest.raises(DataError, match=r"meta_info\.txt: is not UTF-8 text"):
        lmdb_keys(folder)
    with pytest.raises(DataError, match=r"images\.lmdb/3: no such image in this LMDB"):
        read_image(folder / "3")
    with pytest.raises(DataError, match=r"no\.lmdb: is not an LMDB \(data\.mdb is missing\)"):
        images_by_stem(tmp_path / "no.lmdb")
    broken = tmp_path / "broken.lmdb"
    broken.mkdir()
    (broken / "data.mdb").write_bytes(b"x" * 9000)
    with pytest.raises(DataError, match=r"broken\.lmdb: cannot be read as an LMDB \(MDB_INVALID"):
        images_by_stem(broken)
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(DataError, match=r"LMDB needs the package lmdb; pip install lmdb"):
        images_by_stem(folder)


def test_a_cut_off_file(tmp_path, make_lmdb):
    large = RNG.integers(0, 256, (200, 200, 3), np.uint8)
    folder = make_lmdb(tmp_path / "cut.lmdb", {"1": large})
    with open(folder / "data.mdb", "r+b") as file:
        file.truncate(40_000)
    with pytest.raises(DataError, match=r"data\.mdb: is cut off \(40000 of \d+ bytes\)"):
        read_image(folder / "1")


def test_a_broken_image_in_it(tmp_path):
    folder = tmp_path / "x.lmdb"
    with lmdb.open(str(folder)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"1", cv2.imencode(".png", RGB)[1].tobytes()[:60])
        transaction.put(b"2", b"")
    with pytest.raises(DataError, match=r"x\.lmdb/1: "):
        read_image(folder / "1")
    with pytest.raises(DataError, match=r"x\.lmdb/2: not a readable image"):
        read_image(folder / "2")
