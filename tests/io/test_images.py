from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from basicsr.io.images import (
    image_format,
    image_size,
    read_image,
    to_levels,
    write_png,
)
from basicsr.utils.errors import DataError

COLOURS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GRAY = COLOURS[..., 0]


def test_png_round_trip(tmp_path: Path):
    write_png(tmp_path / "sub" / "a.png", COLOURS)
    np.testing.assert_array_equal(read_image(tmp_path / "sub" / "a.png"), COLOURS)
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["a.png"]


def test_gray_gets_three_equal_channels(tmp_path: Path):
    write_png(tmp_path / "a.png", GRAY)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.stack([GRAY] * 3, axis=2))


def test_sixteen_bit_gray_is_scaled(tmp_path: Path):
    levels = np.array([[0, 128, 129, 257, 32896, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


def test_sixteen_bit_colour_is_scaled(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "a.png"), COLOURS[..., ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), COLOURS)


def test_alpha_is_dropped_and_colours_stay(tmp_path: Path):
    Image.fromarray(np.dstack([COLOURS, GRAY])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), COLOURS)


def test_gray_with_alpha(tmp_path: Path):
    Image.fromarray(np.dstack([GRAY, GRAY])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[..., 1], GRAY)


def test_palette_and_bilevel(tmp_path: Path):
    image = Image.fromarray(np.kron(np.uint8([[0, 255], [255, 0]]), np.ones((3, 3), np.uint8)))
    image.convert("P").save(tmp_path / "p.png")
    image.convert("1").save(tmp_path / "b.png")
    for name in ("p.png", "b.png"):
        np.testing.assert_array_equal(read_image(tmp_path / name)[..., 2], np.asarray(image))


def test_cmyk(tmp_path: Path):
    image = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    image.save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif")[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:, 16:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.rot90(upright)).save(path, exif=exif)
    read = read_image(path)
    assert read.shape == upright.shape == (*image_size(path), 3)
    assert np.abs(read.astype(int) - upright).max() < 8


def test_truncated_files_are_named(tmp_path: Path):
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for name in ("a.png", "a.jpg", "a.webp"):
        path = tmp_path / name
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(DataError, match=rf"^{path}: (cannot be decoded|not a readable) \(?"):
            read_image(path)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_files_that_are_not_images_are_named(tmp_path: Path, content: bytes):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{path}: not a readable image"):
        read_image(path)


def test_missing_file(tmp_path: Path):
    with pytest.raises(DataError, match=r"a\.png: no such file"):
        read_image(tmp_path / "a.png")


def test_floating_point_levels_are_refused(tmp_path: Path):
    Image.fromarray(np.float32([[0.5]])).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="floating-point levels; save it with 8 or 16 bits"):
        read_image(tmp_path / "a.tif")


def test_decompression_bomb_is_refused_by_its_header(tmp_path: Path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(
        DataError, match=r"bomb\.png: too large .*30000 x 30000 pixels; the limit is 250 meg"
    ):
        read_image(path)


def test_a_failed_write_leaves_nothing(tmp_path: Path):
    with pytest.raises(TypeError):
        write_png(tmp_path / "a.png", np.zeros((2, 2, 5), np.uint8))
    assert list(tmp_path.iterdir()) == []


DEEP = COLOURS.astype(np.uint16) * 256 + COLOURS[::-1]


def _write_16_bits(path: Path, image: np.ndarray) -> Path:
    order = image[..., 0] if image.shape[2] == 1 else image[..., ::-1]
    cv2.imwrite(str(path), order)
    return path


@pytest.mark.parametrize("suffix", ["png", "tif", "ppm"])
def test_sixteen_bits_are_kept_if_asked_for(tmp_path: Path, suffix: str):
    path = _write_16_bits(tmp_path / f"a.{suffix}", DEEP)
    for bit_depth in (16, "as_stored"):
        image = read_image(path, bit_depth=bit_depth)
        assert image.dtype == np.uint16
        np.testing.assert_array_equal(image, DEEP)
    assert read_image(path).dtype == np.uint8
    assert image_format(path, "rgb", 16) == (5, 7, 3, np.uint16)
    assert image_format(path) == (5, 7, 3, np.uint8)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_of_gray_are_kept(tmp_path: Path, suffix: str):
    path = _write_16_bits(tmp_path / f"a.{suffix}", DEEP[..., :1])
    for color in ("gray", "as_stored"):
        np.testing.assert_array_equal(read_image(path, color, "as_stored"), DEEP[..., :1])
        assert image_format(path, color, "as_stored") == (5, 7, 1, np.uint16)
    np.testing.assert_array_equal(read_image(path, bit_depth=16), DEEP[..., [0, 0, 0]])


def test_eight_bits_as_sixteen(tmp_path: Path):
    write_png(tmp_path / "a.png", COLOURS)
    image = read_image(tmp_path / "a.png", bit_depth=16)
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, COLOURS.astype(int) * 257)
    assert read_image(tmp_path / "a.png", bit_depth="as_stored").dtype == np.uint8


def test_gray_stays_one_channel(tmp_path: Path):
    write_png(tmp_path / "gray.png", GRAY)
    Image.fromarray(np.dstack([GRAY, GRAY])).save(tmp_path / "alpha.png")
    for name in ("gray.png", "alpha.png"):
        for color in ("gray", "as_stored"):
            np.testing.assert_array_equal(read_image(tmp_path / name, color), GRAY[..., None])
            assert image_format(tmp_path / name, color) == (5, 7, 1, np.uint8)
    write_png(tmp_path / "rgb.png", COLOURS)
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.png", "as_stored"), COLOURS)
    assert image_format(tmp_path / "rgb.png", "as_stored").channels == 3


def test_colours_become_gray_by_the_weights_of_bt601(tmp_path: Path):
    write_png(tmp_path / "a.png", COLOURS)
    gray = read_image(tmp_path / "a.png", "gray")
    assert gray.shape == (5, 7, 1)
    assert np.abs(gray[..., 0] - COLOURS @ np.array([0.299, 0.587, 0.114])).max() < 0.51
    write_png(tmp_path / "deep.png", DEEP)
    deep = read_image(tmp_path / "deep.png", "gray", 16)
    assert np.abs(deep[..., 0] - DEEP @ np.array([0.299, 0.587, 0.114])).max() < 1


def test_alpha_is_dropped_from_sixteen_bits(tmp_path: Path):
    _write_16_bits(tmp_path / "a.png", np.dstack([DEEP, DEEP[..., 0]])[..., [3, 0, 1, 2]])
    stored = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    image = read_image(tmp_path / "a.png", bit_depth="as_stored")
    np.testing.assert_array_equal(image, stored[..., [2, 1, 0]])
    assert image.flags.c_contiguous


def test_truncated_sixteen_bits_are_named(tmp_path: Path):
    path = tmp_path / "a.png"
    write_png(path, np.random.default_rng(1).integers(0, 65536, (64, 64, 3), dtype=np.uint16))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"^{path}: cannot be decoded \("):
        read_image(path, bit_depth=16)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_png_of_any_channels_and_depth(tmp_path: Path, dtype: type, channels: int):
    image = np.random.default_rng(2).integers(0, np.iinfo(dtype).max + 1, (5, 7, channels), dtype)
    write_png(tmp_path / "a.png", image)
    written = read_image(tmp_path / "a.png", "as_stored", "as_stored")
    assert written.dtype == dtype
    np.testing.assert_array_equal(written, image)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("shape", [(2, 2, 2), (2, 2, 6), (2, 2, 2, 1), (4,)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_arrays_that_no_png_holds(tmp_path: Path, shape: tuple[int, ...], dtype: type):
    with pytest.raises(TypeError, match="no PNG holds"):
        write_png(tmp_path / "a.png", np.zeros(shape, dtype))
    assert list(tmp_path.iterdir()) == []


def test_levels_are_rounded_or_truncated():
    image = np.array([0, 0.25, 0.5, 0.999, 1], np.float32)
    assert to_levels(image, np.uint8).tolist() == [0, 64, 128, 255, 255]
    assert to_levels(image, np.uint8, "truncate").tolist() == [0, 63, 127, 254, 255]
    assert to_levels(image, np.uint16).tolist() == [0, 16384, 32768, 65469, 65535]
