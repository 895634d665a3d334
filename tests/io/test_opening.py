"""Limits against images that are too large, or take too long to decode."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from basicsr.io import opening
from basicsr.io.images import image_size, read_image
from basicsr.io.opening import LIMIT_VARIABLE, max_megapixels, set_max_megapixels
from basicsr.io.photographs import read_photograph
from basicsr.utils.errors import DataError, OptionsError

LOSSLESS = ["png", "tif", "bmp", "ppm", "jp2", "tga"]
NOISE = np.random.default_rng(7).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def default_limit(monkeypatch):
    monkeypatch.setenv(LIMIT_VARIABLE, "250")  # so that it is restored at the end
    monkeypatch.delenv(LIMIT_VARIABLE)


def save(path: Path, image: Image.Image | None = None, **options) -> Path:
    (image or Image.fromarray(NOISE)).save(path, **options)
    return path


def test_photographs_of_phones_are_below_the_limit(tmp_path: Path):
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 12000 9000 255\n")
    with path.open("r+b") as file:
        file.truncate(18 + 12000 * 9000)
    assert image_size(path) == (9000, 12000)


@pytest.mark.parametrize("suffix", [*LOSSLESS, "jpg", "webp", "gif", "avif"])
def test_images_beyond_the_limit_are_refused_with_their_size(tmp_path, suffix, recwarn):
    path = save(tmp_path / f"a.{suffix}")
    set_max_megapixels(0.003071)
    for read in (read_image, image_size, read_photograph):
        with pytest.raises(DataError) as caught:
            read(path)
        assert str(caught.value) == (
            f"{path}: too large to be decoded (64 x 48 pixels; the limit is 0.003071 megapixels, "
            f"which --max-megapixels or the environment variable {LIMIT_VARIABLE} raises)"
        )
    set_max_megapixels(0.003072)
    assert read_image(path).shape == (48, 64, 3)
    assert not recwarn.list


def test_the_limit_comes_from_the_environment(monkeypatch):
    assert max_megapixels() == 250
    monkeypatch.setenv(LIMIT_VARIABLE, "400")
    assert max_megapixels() == 400


@pytest.mark.parametrize("value", ["", "much", "-1", "0", "nan", "inf"])
def test_a_limit_that_is_no_number_is_an_error(tmp_path, monkeypatch, value):
    path = save(tmp_path / "a.png")
    monkeypatch.setenv(LIMIT_VARIABLE, value)
    with pytest.raises(OptionsError, match=f"^{LIMIT_VARIABLE}: '{value}' is not a positive"):
        read_image(path)


def many_scans(scans: int) -> bytes:
    """Return a gray progressive JPEG whose last scan is repeated."""
    file = io.BytesIO()
    Image.new("L", (2000, 1000)).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * scans + content[-2:]


def test_scans_without_end_are_refused(tmp_path: Path):
    path = tmp_path / "a.jpg"
    path.write_bytes(many_scans(3000))
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert "too large to be decoded (2 megapixels in 300" in str(caught.value)
    assert "scans, which would take very long; save it again, or raise" in str(caught.value)
    path.write_bytes(many_scans(30))
    assert read_image(path).shape == (1000, 2000, 3)


def test_previews_count_no_scans():
    preview = struct.pack(">2sH", b"\xff\xe1", 6) + b"\xff\xda\xff\xda"
    content = many_scans(5)
    scans = opening._count_scans(content)
    assert scans == content.count(b"\xff\xda")
    assert opening._count_scans(content[:2] + preview + content[2:]) == scans


def sparse_tail(path: Path, gigabytes: int = 3) -> None:
    with path.open("r+b") as file:
        file.truncate(gigabytes * 2**30)


@pytest.mark.parametrize("suffix", [*LOSSLESS, "jpg", "gif", "webp", "avif", "heic"])
@pytest.mark.timeout(60)
def test_a_large_tail_after_the_image_is_not_read(tmp_path, suffix):
    if suffix == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    path = save(tmp_path / f"a.{suffix}")
    expected = read_image(path)
    sparse_tail(path)
    np.testing.assert_array_equal(read_image(path), expected)
    if suffix != "gif":
        np.testing.assert_array_equal(read_photograph(path).colours, expected)


@pytest.mark.timeout(60)
def test_junk_between_the_parts_of_a_file_is_not_skipped_for_minutes(tmp_path: Path):
    content = save(tmp_path / "a.jpg").read_bytes()
    path = tmp_path / "b.jpg"
    path.write_bytes(content[:2])
    sparse_tail(path, 1)
    with path.open("ab") as file:
        file.write(content[2:])
    with pytest.raises(DataError):
        read_image(path)


def test_run_lengths_are_read_byte_by_byte_however_many_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "_FEW_READS", 2000)
    levels = (np.arange(4096) % 256).reshape(64, 64)
    runs = np.zeros((64, 65, 2), np.uint8)  # each row ends with two zeros
    runs[:, :64, 0], runs[:, :64, 1] = 1, levels
    header = struct.pack("<IiiHHIIiiII", 40, 64, 64, 1, 8, 1, runs.size, 0, 0, 256, 0)
    palette = np.repeat(np.arange(256, dtype=np.uint8), 4).reshape(256, 4).tobytes()
    start = 14 + len(header) + len(palette)
    path = tmp_path / "a.bmp"
    path.write_bytes(
        b"BM" + struct.pack("<IHHI", start + runs.size, 0, 0, start) + header + palette
        + runs.tobytes()
    )  # fmt: skip
    np.testing.assert_array_equal(read_image(path, "gray")[..., 0], levels[::-1])


def test_large_chunks_are_not_read(tmp_path: Path):
    content = save(tmp_path / "a.png").read_bytes()
    path = tmp_path / "b.png"
    path.write_bytes(content[:33] + struct.pack(">I", 2**30) + b"zzZz")
    sparse_tail(path, 2)
    with pytest.raises(DataError, match="much larger than its image"):
        read_image(path)


def test_compressed_notes_do_not_fill_the_memory(tmp_path: Path):
    content = save(tmp_path / "a.png").read_bytes()
    data = b"zTXt" + b"note\0\0" + zlib.compress(bytes(2**23))
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    (tmp_path / "a.png").write_bytes(content[:33] + chunk + content[33:])
    with pytest.raises(DataError, match="not a readable image"):
        read_image(tmp_path / "a.png")
