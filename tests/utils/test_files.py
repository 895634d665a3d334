from __future__ import annotations

import hashlib
import os

import pytest

from basicsr.utils.errors import DataError
from basicsr.utils.files import (
    atomic_write,
    extended_name,
    hidden_name,
    open_own,
    private_folder,
    safe_name,
    sha256,
)


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


def test_a_planted_link_is_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    folder = tmp_path / "shared"
    folder.mkdir()
    for name in ("out.png", ".out.png.part"):
        (folder / name).symlink_to(precious)
    with atomic_write(folder / "out.png") as file:
        file.write(b"new")
    assert precious.read_bytes() == b"precious"
    assert [f.name for f in folder.iterdir()] == ["out.png"]
    assert not (folder / "out.png").is_symlink()
    assert (folder / "out.png").read_bytes() == b"new"


def test_what_a_killed_process_left_is_replaced(tmp_path):
    (tmp_path / ".a.part").write_bytes(b"half of something that was longer")
    with atomic_write(tmp_path / "a") as file:
        file.write(b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 1


def test_another_process_that_writes_the_same_file_is_an_error(tmp_path):
    def write_twice():
        with atomic_write(tmp_path / "a") as file:
            file.write(b"mine")
            with atomic_write(tmp_path / "a") as other:
                other.write(b"theirs")

    with pytest.raises(FileExistsError, match="another process"):
        write_twice()
    assert (tmp_path / "a").read_bytes() == b"theirs"
    assert [f.name for f in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("length", [1, 80, 83, 84, 85])
def test_names_of_any_length_can_be_written(tmp_path, length):
    name = "雨" * length
    with atomic_write(tmp_path / name) as file:
        file.write(b"new")
    assert [f.name for f in tmp_path.iterdir()] == [name]


def test_new_files_have_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "a") as file:
            file.write(b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_extended_names_fit_and_differ():
    assert extended_name("a.png", ".compare.jpg") == "a.png.compare.jpg"
    names = {extended_name("雨" * 83 + ending, ".compare.jpg") for ending in (".png", ".jpg")}
    assert len(names) == 2
    for name in names:
        assert len(name.encode()) <= 255
        assert name.startswith("雨" * 50)
        assert name.endswith(".compare.jpg")
    assert hidden_name("a", ".part") == ".a.part"
    assert len(hidden_name("é" * 127, ".part")) < 30


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o277])
def test_private_folders_are_private_under_any_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        folder = private_folder(tmp_path / "cache")
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert private_folder(folder).stat().st_mode & 0o777 == 0o700


def test_a_private_folder_may_be_an_own_link(tmp_path):
    (tmp_path / "large disk").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "large disk")
    private_folder(tmp_path / "cache")
    assert (tmp_path / "large disk").stat().st_mode & 0o777 == 0o700


def test_a_folder_or_link_of_another_user_is_refused(tmp_path):
    (tmp_path / "own").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "own")
    if os.geteuid():
        pytest.skip("needs root")
    os.chown(link, 65534, 65534, follow_symlinks=False)
    with pytest.raises(DataError, match="link: belongs to another user"):
        private_folder(link)


def test_folders_and_links_in_the_way_are_named(tmp_path):
    (tmp_path / ".a.part").mkdir()
    with pytest.raises(OSError, match=r"the folder \.a\.part is beside it; remove that"):
        interrupted(tmp_path / "a")
    with pytest.raises(OSError, match="is a folder; remove it"):
        open_own(tmp_path)


@pytest.mark.parametrize("make", ["link", "loop", "folder", "pipe"])
def test_only_plain_files_are_opened_for_appending(tmp_path, make):
    path, other = tmp_path / "log", tmp_path / "other"
    if make == "link":
        path.symlink_to(other)
    elif make == "loop":
        path.symlink_to(path)
    elif make == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(OSError, match="log"):
        open_own(path)
    assert not other.exists()


@pytest.mark.parametrize("name", ["a", "a b", "雨", "a..b", "x" * 200])
def test_safe_names(name):
    assert safe_name(name) == name


@pytest.mark.parametrize("name", ["", " ", ".", "..", "../x", "/x", "a\\b", "a\0", "é" * 101])
def test_names_that_leave_their_folder(name):
    with pytest.raises(ValueError, match="name"):
        safe_name(name)
