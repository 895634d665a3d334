from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from basicsr.io.images import image_size, list_images, natural_key, read_image, write_png
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
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes):
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
    with pytest.raises(DataError, match=r"bomb\.png: too large .*900000000 pixels"):
        read_image(path)


def test_a_failed_write_leaves_nothing(tmp_path: Path):
    with pytest.raises(TypeError):
        write_png(tmp_path / "a.png", np.zeros((2, 2, 5), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_images_are_listed_in_natural_order_without_hidden_ones(tmp_path: Path):
    for name in (
        "rain-10.png",
        "rain-9.PNG",
        "sub/rain-1.jpg",
        ".rain-2.png",
        ".git/x.png",
        "a.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert names == ["rain-9.PNG", "rain-10.png", "sub/rain-1.jpg"]
    assert sorted(["b10", "b9", "10", "9"], key=natural_key) == ["9", "10", "b9", "b10"]


def test_missing_and_empty_folders_are_told(tmp_path: Path):
    with pytest.raises(DataError, match=r"x: no such folder; check the path"):
        list_images(tmp_path / "x")
    with pytest.raises(DataError, match=r"no images in this folder"):
        list_images(tmp_path)
