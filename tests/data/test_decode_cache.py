from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from torch.multiprocessing import get_context

from basicsr.data import build_dataset, decode_cache
from basicsr.data.decode_cache import DecodeCache
from basicsr.io.images import read_image, write_png
from basicsr.utils.errors import DataError


@pytest.fixture
def files(make_images, monkeypatch) -> list[Path]:
    root = make_images(["1.png", "2.png", "3.png"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "cache"))
    return sorted(root.glob("*.png"))


@pytest.fixture
def decoded(monkeypatch) -> list[Path]:
    """Return the list of the files that are decoded from now on."""
    seen: list[Path] = []

    def read(path: Path, *options) -> np.ndarray:
        seen.append(path)
        return read_image(path, *options)

    monkeypatch.setattr(decode_cache, "read_image", read)
    return seen


@pytest.mark.parametrize(("kind", "times"), [("none", 2), ("memory", 1), ("disk", 1)])
def test_images_are_the_same_and_decoded_once(files, decoded, kind, times):
    cache = DecodeCache(files, kind, 1.0)
    for _ in range(2):
        for path in files:
            np.testing.assert_array_equal(cache(path), read_image(path))
    assert len(decoded) == times * len(files)


def test_cached_pixels_cannot_be_written_to(files):
    cache = DecodeCache(files, "memory", 1.0)
    for _ in range(2):
        with pytest.raises(ValueError, match="read-only"):
            cache(files[0])[:] = 0


def test_a_sample_may_be_written_to(files):
    by = {"type": "SyntheticRainDataset", "cache": "memory", "dataroot_gt": str(files[0].parent)}
    source = build_dataset(by)
    source.sample(0).gt[:] = 0
    np.testing.assert_array_equal(source.sample(0).gt, read_image(files[0]))


def test_the_size_limit_is_respected(files, decoded):
    two_images = 3 * 8 + 2 * 6 * 8 * 3
    cache = DecodeCache(files, "memory", two_images / 2**30)
    for path in files * 2:
        cache(path)
    assert decoded == [*files, files[2]]
    assert len(cache._map) == two_images


def _fill(cache: DecodeCache, files: list[Path]) -> None:
    for path in files:
        cache(path)


def test_forked_workers_share_the_memory(files, decoded):
    cache = DecodeCache(files, "memory", 1.0)
    worker = get_context("fork").Process(target=_fill, args=(cache, files))
    worker.start()
    worker.join()
    for path in files:
        np.testing.assert_array_equal(cache(path), read_image(path))
    assert decoded == []


@pytest.mark.parametrize(("kind", "expected"), [("memory", 3), ("disk", 0)])
def test_a_pickled_cache_works(files, decoded, kind, expected):
    cache = DecodeCache(files, kind, 1.0)
    _fill(cache, files)
    decoded.clear()
    pickled = pickle.dumps(cache)
    del cache  # in another process there is none
    _fill(pickle.loads(pickled), files)
    assert len(decoded) == expected


def test_a_later_run_uses_the_file(files, decoded):
    _fill(DecodeCache(files, "disk", 1.0), files)
    decoded.clear()
    _fill(DecodeCache(files, "disk", 1.0), files)
    assert decoded == []


def test_a_changed_image_is_decoded_again(files, decoded):
    _fill(DecodeCache(files, "disk", 1.0), files)
    write_png(files[1], np.full((6, 8, 3), 9, np.uint8))
    assert DecodeCache(files, "disk", 1.0)(files[1]).max() == 9


def test_pixels_half_written_by_another_run_are_decoded_again(files, decoded):
    cache = DecodeCache(files, "disk", 1.0)
    _fill(cache, files)
    decoded.clear()
    cache._map[-1] ^= 1  # the last image's last value
    later = DecodeCache(files, "disk", 1.0)
    for _ in range(2):
        for path in files:
            np.testing.assert_array_equal(later(path), read_image(path))
    assert decoded == [files[-1]]


def test_each_process_verifies_the_pixels(files, decoded):
    """Pixels that another process wrote must agree with its checksum."""
    cache = DecodeCache(files, "memory", 1.0)
    worker = get_context("fork").Process(target=_fill, args=(cache, files))
    worker.start()
    worker.join()
    cache._map[3 * 8] ^= 1  # the first image's first value
    np.testing.assert_array_equal(cache(files[0]), read_image(files[0]))
    _fill(cache, files)
    assert decoded == [files[0]]


def test_files_unused_for_long_are_removed(files):
    _fill(DecodeCache(files, "disk", 1.0), files)
    (old,) = (Path(os.environ["XDG_CACHE_HOME"]) / "dtpnet-derain").iterdir()
    os.utime(old, (0, 0))
    DecodeCache(files[:1], "disk", 1.0)
    assert not old.exists()


def test_a_folder_that_cannot_be_written(files, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(files[0]))
    with pytest.raises(DataError, match=r"no decode cache of .*lower cache_gib or set"):
        DecodeCache(files, "disk", 1.0)


@pytest.mark.parametrize("kind", ["none", "memory", "disk"])
@pytest.mark.parametrize(("color", "bit_depth"), [("gray", 8), ("rgb", 16), ("as_stored",) * 2])
def test_any_channels_and_depth(files, kind, color, bit_depth):
    write_png(files[1], np.arange(15, dtype=np.uint16).reshape(3, 5, 1) * 1000)
    cache = DecodeCache(files, kind, 1.0, color, bit_depth)
    for _ in range(2):
        for path in files:
            expected = read_image(path, color, bit_depth)
            assert cache(path).dtype == expected.dtype
            assert cache(path).flags.aligned
            np.testing.assert_array_equal(cache(path), expected)


def test_gray_and_colour_do_not_share_a_file(files):
    for color, channels in (("rgb", 3), ("gray", 1), ("rgb", 3)):
        assert DecodeCache(files, "disk", 1.0, color)(files[0]).shape == (6, 8, channels)


def test_folder_and_file_are_private(files):
    DecodeCache(files, "disk", 1.0)
    folder = Path(os.environ["XDG_CACHE_HOME"]) / "dtpnet-derain"
    (file,) = folder.iterdir()
    assert [path.stat().st_mode & 0o777 for path in (folder, file)] == [0o700, 0o600]
    folder.chmod(0o777)
    DecodeCache(files, "disk", 1.0)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_link_in_place_of_the_file_is_refused(files):
    DecodeCache(files, "disk", 1.0)
    (file,) = (Path(os.environ["XDG_CACHE_HOME"]) / "dtpnet-derain").iterdir()
    other = files[0].with_name("other")
    file.rename(other)
    file.symlink_to(other)
    with pytest.raises(DataError, match=r"no decode cache of .*Too many levels of symbolic links"):
        DecodeCache(files, "disk", 1.0)


def test_a_folder_of_another_user_is_refused(files, monkeypatch):
    DecodeCache(files, "disk", 1.0)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(DataError, match="dtpnet-derain: belongs to another user; set XDG_CACHE"):
        DecodeCache(files, "disk", 1.0)


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_broken_header_does_not_stop_a_decode_cache(files, kind):
    good, broken, gone = files
    image = read_image(good)
    broken.write_text("no image")
    gone.unlink()
    cache = DecodeCache([good, broken, gone], kind, 1.0)
    np.testing.assert_array_equal(cache(good), image)
    for path, reason in ((broken, "not a readable image"), (gone, "no such file")):
        with pytest.raises(DataError, match=reason):
            cache(path)


def test_data_sets_of_the_same_images_share_the_memory(files, decoded):
    one, two, gray = (DecodeCache(files, "memory", 1.0, color) for color in ("rgb", "rgb", "gray"))
    assert one(files[0]).ctypes.data == two(files[0]).ctypes.data
    assert len(decoded) == 1
    assert gray(files[0]).shape[2] == 1
    smaller = DecodeCache(files, "memory", 1.5 * one(files[0]).nbytes / 2**30)
    np.testing.assert_array_equal(smaller(files[0]), one(files[0]))
    assert len(decoded) == 3


def test_memory_that_no_data_set_uses_is_freed(files, decoded):
    for _ in range(2):
        DecodeCache(files, "memory", 1.0)(files[0])
    assert len(decoded) == 2
