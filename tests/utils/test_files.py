import hashlib

import pytest

from basicsr.utils.files import atomic_write, sha256


def interrupted(file):
    with atomic_write(file) as stream:
        stream.write(b"half of the n")
        raise KeyboardInterrupt


def test_an_interrupted_file_leaves_the_old_one(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        interrupted(file)
    assert file.read_bytes() == b"old"
    assert [f.name for f in tmp_path.iterdir()] == ["weights"]


def test_a_finished_file_takes_the_name(tmp_path):
    file = tmp_path / "weights"
    with atomic_write(file) as stream:
        stream.write(b"new")
        assert not file.exists()
    assert file.read_bytes() == b"new"
    assert [f.name for f in tmp_path.iterdir()] == ["weights"]


def test_sha256_of_a_file_longer_than_a_block(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "f").write_bytes(content)
    assert sha256(tmp_path / "f") == hashlib.sha256(content).hexdigest()
