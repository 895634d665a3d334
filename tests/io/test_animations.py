"""Animations are read and written frame by frame."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from basicsr.io import opening
from basicsr.io.animations import is_animation, read_animation
from basicsr.io.photo_formats import png_with
from basicsr.utils.errors import DataError

NOISE = np.random.default_rng(0).integers(0, 256, (4, 12, 16, 3), dtype=np.uint8)


def animated(path, frames=NOISE, **options):
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], **options)
    return path


def unchanged(animation):
    return ((frame.colours / np.float32(255), frame.alpha) for frame in animation.frames())


def frames_of(path):
    with Image.open(path) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            yield np.asarray(image.convert("RGBA")).astype(int)


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_lossless_animations_stay_exact(tmp_path, suffix):
    transparent = np.concatenate([NOISE, NOISE[..., :1] // 128 * 255], axis=3)
    for frames in (NOISE, transparent):
        file = animated(tmp_path / f"a.{suffix}", frames, lossless=True, exact=True, duration=40)
        animation = read_animation(file)
        assert is_animation(file)
        (tmp_path / "out").write_bytes(animation.encoded(unchanged(animation)))
        found = list(frames_of(tmp_path / "out"))
        for frame, expected in zip(found, frames_of(file), strict=True):
            opaque = expected[..., 3:] > 0
            np.testing.assert_array_equal(frame * opaque, expected * opaque)


@pytest.mark.parametrize("suffix", ["avif", "webp"])
def test_lossy_animations_stay_close(tmp_path, suffix):
    smooth = np.kron(NOISE[:, :3, :4], np.ones((1, 16, 16, 1), np.uint8))
    file = animated(tmp_path / f"a.{suffix}", smooth, duration=[40, 60, 80, 100])
    animation = read_animation(file)
    assert animation.durations == [40, 60, 80, 100]
    (tmp_path / "out").write_bytes(animation.encoded(unchanged(animation)))
    assert read_animation(tmp_path / "out").durations == animation.durations
    pairs = zip(frames_of(tmp_path / "out"), frames_of(file), strict=True)
    assert all(np.abs(frame - expected).mean() < 8 for frame, expected in pairs)


def test_gif_of_one_frame_and_of_transparent_ones(tmp_path):
    gray = np.repeat(NOISE[..., :1], 3, axis=3)
    Image.fromarray(gray[0]).save(tmp_path / "one.gif")
    assert is_animation(tmp_path / "one.gif")
    animation = read_animation(tmp_path / "one.gif")
    (tmp_path / "out.gif").write_bytes(animation.encoded(unchanged(animation)))
    (found,) = frames_of(tmp_path / "out.gif")
    assert np.abs(found[..., :3] - gray[0].astype(int)).mean() < 2

    transparent = np.concatenate([gray, NOISE[..., 1:2] // 128 * 255], axis=3)
    file = animated(tmp_path / "a.gif", transparent, duration=100, disposal=2)
    animation = read_animation(file)
    (tmp_path / "out.gif").write_bytes(animation.encoded(unchanged(animation)))
    for frame, expected in zip(frames_of(tmp_path / "out.gif"), frames_of(file), strict=True):
        np.testing.assert_array_equal(frame[..., 3], expected[..., 3])
        opaque = expected[..., 3:] > 0
        assert np.abs((frame - expected) * opaque).mean() < 3


def test_the_picture_of_a_png_that_is_no_part_of_its_animation_stays(tmp_path):
    file = animated(tmp_path / "a.png", default_image=True, duration=[50, 60, 70])
    animation = read_animation(file)
    (tmp_path / "out").write_bytes(animation.encoded(unchanged(animation)))
    with Image.open(tmp_path / "out") as out:
        assert out.info["default_image"]
        assert out.n_frames == 4
    for frame, expected in zip(frames_of(tmp_path / "out"), frames_of(file), strict=True):
        np.testing.assert_array_equal(frame, expected)


def test_notes_of_png_stay_and_damaged_ones_are_named(tmp_path):
    file = animated(tmp_path / "a.png")
    note = struct.pack(">I", 3) + b"tEXta\0b" + struct.pack(">I", zlib.crc32(b"tEXta\0b"))
    bad = struct.pack(">I", 1) + b"sRGB\7" + struct.pack(">I", zlib.crc32(b"sRGB\7"))
    file.write_bytes(png_with(file.read_bytes(), note + bad))
    animation = read_animation(file)
    content = animation.encoded(unchanged(animation))
    assert note in content
    assert bad not in content
    assert animation.left_out == ["sRGB (damaged)"]


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_truncated_animations_are_named(tmp_path, suffix):
    file = animated(tmp_path / f"a.{suffix}")
    content = file.read_bytes()
    for part in (0.3, 0.6, 0.9):
        file.write_bytes(content[: int(len(content) * part)])
        with pytest.raises(DataError, match=f"^{file}: [^\n]*$"):
            list(read_animation(file).frames())


def test_animations_above_the_limit_are_refused_by_their_header(tmp_path, monkeypatch):
    file = animated(tmp_path / "a.webp")
    monkeypatch.setenv(opening.LIMIT_VARIABLE, "0.0007")
    with pytest.raises(DataError, match=r"4 frames of 16 x 12 pixels; the limit is 0\.0007 meg"):
        read_animation(file)
    monkeypatch.setenv(opening.LIMIT_VARIABLE, "0.0008")
    assert len(read_animation(file).durations) == 4


def test_still_images_are_no_animations(tmp_path):
    for suffix in ("png", "webp", "jpg", "tif", "avif"):
        Image.fromarray(NOISE[0]).save(tmp_path / f"a.{suffix}")
        assert not is_animation(tmp_path / f"a.{suffix}")
