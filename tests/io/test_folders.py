"""Listing folders: links, loops, hidden files and names that are not text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from basicsr.io.folders import images_by_stem, list_folder, list_images, natural_key
from basicsr.utils.errors import DataError


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def relative(root: Path, paths: list[Path]) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def test_images_are_listed_in_natural_order_without_hidden_ones(tmp_path: Path):
    for name in (
        "image-10.png",
        "image-9.PNG",
        "sub/image-1.jpg",
        ".image-2.png",
        ".git/x.png",
        "a.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert names == ["image-9.PNG", "image-10.png", "sub/image-1.jpg"]
    assert sorted(["b10", "b9", "10", "9"], key=natural_key) == ["9", "10", "b9", "b10"]


def test_missing_and_empty_folders_are_reported(tmp_path: Path):
    with pytest.raises(DataError, match=r"x: no such folder; check the path"):
        list_images(tmp_path / "x")
    with pytest.raises(DataError, match=r"no images in this folder"):
        list_images(tmp_path)


@pytest.mark.parametrize(
    "suffix", ["jfif", "AVIF", "heic", "heif", "tga", "jp2", "j2k", "gif", "apng", "jpe", "dib"]
)
def test_every_format_of_photographs_is_listed(tmp_path: Path, suffix: str):
    make(tmp_path, f"a.{suffix}")
    assert relative(tmp_path, list_images(tmp_path)) == [f"a.{suffix}"]


def test_what_is_no_image_is_listed_apart(tmp_path: Path):
    make(tmp_path, "a.png", "b.cr2", "sub/notes.txt", ".DS_Store", "._a.jpg", ".git/x.png", "none")
    files, others, repeated, problems = list_folder(tmp_path)
    assert relative(tmp_path, files) == ["a.png"]
    assert sorted(relative(tmp_path, others)) == ["._a.jpg", "b.cr2", "none", "sub/notes.txt"]
    assert repeated == problems == []


def test_linked_folders_are_followed_once(tmp_path: Path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    make(root, "a/1.png")
    make(elsewhere, "2.png", "deeper/3.png")
    (root / "album").symlink_to(elsewhere)
    (root / "again").symlink_to("album")
    (elsewhere / "back").symlink_to(root)
    (root / "a" / "self").symlink_to(".")
    (root / "first").symlink_to("a")
    files, others, repeated, problems = list_folder(root)
    assert relative(root, files) == ["a/1.png", "again/2.png", "again/deeper/3.png"]
    assert sorted(relative(root, repeated)) == ["a/self", "again/back", "album", "first"]
    assert others == problems == []
    assert list_images(root) == files


def test_links_that_multiply_end(tmp_path: Path):
    make(tmp_path, "20/a.png")
    for depth in range(20):
        (tmp_path / f"{depth}").mkdir(exist_ok=True)
        for name in ("left", "right"):
            (tmp_path / f"{depth}" / name).symlink_to(tmp_path / f"{depth + 1}")
    listing = list_folder(tmp_path / "0")
    assert relative(tmp_path, listing.files) == ["0/" + "left/" * 20 + "a.png"]
    assert len(listing.repeated) == 20


def test_loops_and_dangling_links_are_files_whose_reading_fails(tmp_path: Path):
    make(tmp_path, "folder.png/1.png")
    (tmp_path / "linked.png").symlink_to(tmp_path / "folder.png/1.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "gone").symlink_to("nowhere")
    files, others, _, problems = list_folder(tmp_path)
    assert relative(tmp_path, files) == ["folder.png/1.png", "gone.png", "linked.png", "loop.png"]
    assert relative(tmp_path, others) == ["gone"]
    assert problems == []


def test_a_file_name_that_is_not_text(tmp_path: Path):
    make(tmp_path, "1.png")
    with open(os.fsencode(tmp_path) + b"/caf\xe9.png", "wb"):
        pass
    message = f"'{tmp_path}/caf\\udce9.png': this file name is not UTF-8 text; rename the file"
    with pytest.raises(DataError) as caught:
        list_images(tmp_path)
    assert str(caught.value) == message
    files, _, _, problems = list_folder(tmp_path)
    assert (relative(tmp_path, files), problems) == (["1.png"], [message])


def test_files_that_differ_in_their_suffix_only(tmp_path: Path):
    make(tmp_path, "a/1.png", "a/2.jpg")
    assert list(images_by_stem(tmp_path)) == ["a/1", "a/2"]
    make(tmp_path, "a/1.avif")
    with pytest.raises(DataError, match="differ in their suffix only; keep one"):
        images_by_stem(tmp_path)
