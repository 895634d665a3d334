"""Photographs keep their format and metadata; only the colours change."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps
from PIL.JpegImagePlugin import get_sampling
from PIL.TiffImagePlugin import IFDRational

from basicsr.io.images import to_levels
from basicsr.io.photo_formats import without_preview
from basicsr.io.photographs import read_photograph
from basicsr.utils.errors import DataError

SMALL = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
COLOURS = np.asarray(Image.fromarray(SMALL).resize((23, 18), Image.Resampling.BICUBIC))
DEEP = COLOURS.astype(np.uint16) * 256 + COLOURS[::-1]
GRAY, ALPHA = COLOURS[..., 1], COLOURS[::-1, ::-1, 2]
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"></x:xmpmeta>'
EXPOSURE, MAKER_NOTE, EXIF, GPS, ORIENTATION = 33434, 37500, 34665, 34853, 274


def exif(orientation: int) -> Image.Exif:
    metadata = Image.Exif()
    metadata[271], metadata[ORIENTATION] = "Camera", orientation
    metadata[EXIF] = {EXPOSURE: IFDRational(1, 250), MAKER_NOTE: b"secret\0note"}
    metadata[GPS] = {1: "N"}
    loaded = Image.Exif()
    loaded.load(metadata.tobytes())
    return loaded


def in_unit(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)


def rewritten(path: Path, change=lambda image: image) -> Path:
    """Return a file that is written with its colours changed by `change`."""
    photograph = read_photograph(path)
    out = path.with_name(f"out_{path.name}")
    out.write_bytes(photograph.encoded(change(in_unit(photograph.colours))))
    return out


def metadata_of(path: Path) -> dict:
    with Image.open(path) as image:
        found = image.getexif()
        return {
            "format": image.format,
            "size": image.size,
            "make": found.get(271),
            "orientation": found.get(ORIENTATION),
            "exif": dict(found.get_ifd(EXIF)),
            "gps": dict(found.get_ifd(GPS)),
            "profile": image.info.get("icc_profile"),
            "xmp": image.info.get("xmp"),
            "dpi": image.info.get("dpi"),
        }


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_metadata_is_kept_and_agrees_with_the_pixels(tmp_path, suffix, orientation):
    file = tmp_path / f"a.{suffix}"
    lossless = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(COLOURS).save(
        file, exif=exif(orientation), icc_profile=PROFILE, xmp=XMP, dpi=(300, 300), **lossless
    )
    with Image.open(file) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    photograph = read_photograph(file)
    np.testing.assert_array_equal(photograph.colours, upright)
    assert photograph.profile == PROFILE

    before, out = metadata_of(file), rewritten(file)
    assert metadata_of(out) == before
    assert before["exif"] == {EXPOSURE: 1 / 250, MAKER_NOTE: b"secret\0note"}
    assert before["orientation"] == orientation
    difference = np.abs(read_photograph(out).colours.astype(int) - upright).mean()
    assert difference <= (4 if suffix == "jpg" else 0)  # other orientations differ by over 30


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_kept_in_any_orientation(tmp_path, suffix, orientation):
    file = tmp_path / f"a.{suffix}"
    file.write_bytes(deep_file(suffix, DEEP, orientation))
    eight = Image.fromarray(COLOURS)
    eight.getexif()[ORIENTATION] = orientation
    photograph = read_photograph(file)
    assert photograph.colours.dtype == np.uint16
    np.testing.assert_array_equal(photograph.colours >> 8, ImageOps.exif_transpose(eight))

    out = rewritten(file, lambda image: 1 - image)
    assert metadata_of(out) == metadata_of(file)
    np.testing.assert_array_equal(read_photograph(out).colours, 65535 - photograph.colours)


def deep_file(suffix: str, image: np.ndarray, orientation: int) -> bytes:
    if suffix == "tif":
        file = io.BytesIO()
        tags = [(ORIENTATION, "H", 1, orientation, True)]
        tifffile.imwrite(file, image, photometric="rgb", iccprofile=PROFILE, extratags=tags)
        return file.getvalue()
    content = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    metadata = b"eXIf" + exif(orientation).tobytes()[6:]
    chunk = (
        struct.pack(">I", len(metadata) - 4) + metadata + struct.pack(">I", zlib.crc32(metadata))
    )
    return content[:33] + chunk + content[33:]


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("gray.png", GRAY),
        ("gray.tif", GRAY),
        ("gray.pgm", GRAY),
        ("gray_alpha.png", np.dstack([GRAY, ALPHA])),
        ("alpha.png", np.dstack([COLOURS, ALPHA])),
        ("alpha.tif", np.dstack([COLOURS, ALPHA])),
        ("plain.ppm", COLOURS),
        ("plain.bmp", COLOURS),
    ],
)
def test_gray_and_transparency_stay(tmp_path, name, image):
    file = tmp_path / name
    Image.fromarray(image).save(file)
    with Image.open(rewritten(file)) as out:
        np.testing.assert_array_equal(np.asarray(out), image)
    darker = Image.open(rewritten(file, lambda colours: colours * 0))
    expected = image * 0
    if image.ndim == 3 and image.shape[2] % 2 == 0:
        expected[..., -1] = ALPHA
    np.testing.assert_array_equal(np.asarray(darker), expected)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_of_gray(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(file), DEEP[..., 0])
    out = cv2.imread(str(rewritten(file)), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(out, DEEP[..., 0])


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_with_transparency(tmp_path, suffix):
    image = np.dstack([DEEP, DEEP[::-1, :, 0]])
    file = tmp_path / f"a.{suffix}"
    if suffix == "tif":
        tifffile.imwrite(file, image, photometric="rgb", extrasamples=["unassalpha"])
    else:
        cv2.imwrite(str(file), image[..., [2, 1, 0, 3]])
    out = cv2.imread(str(rewritten(file)), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(out[..., [2, 1, 0, 3]], image)
    assert metadata_of(file)["format"] == suffix.upper().replace("TIF", "TIFF")


def test_sixteen_bit_ppm(tmp_path):
    file = tmp_path / "a.ppm"
    cv2.imwrite(str(file), DEEP)
    np.testing.assert_array_equal(cv2.imread(str(rewritten(file)), -1), DEEP)


def test_palettes_become_their_colours(tmp_path):
    file = tmp_path / "a.png"
    image = Image.fromarray(COLOURS).quantize(9)
    image.save(file, transparency=3)
    with Image.open(rewritten(file)) as out:
        assert out.mode == "RGBA"
        np.testing.assert_array_equal(np.asarray(out), np.asarray(Image.open(file).convert("RGBA")))


@pytest.mark.parametrize("sampling", [0, 1, 2])
def test_jpeg_keeps_its_sampling_and_its_segments(tmp_path, sampling):
    file = tmp_path / "a.jpg"
    caption = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\0"
    caption = b"\xff\xed" + struct.pack(">H", len(caption) + 2) + caption
    Image.fromarray(COLOURS).save(
        file, subsampling=sampling, comment=b"a shower", progressive=True, extra=caption
    )
    with Image.open(rewritten(file)) as out:
        assert get_sampling(out) == sampling
        assert out.info["comment"] == b"a shower"
        assert "progressive" in out.info
        assert ("APP13", caption[4:]) in out.applist
    gray = tmp_path / "gray.jpg"
    Image.fromarray(GRAY).save(gray)
    assert Image.open(rewritten(gray)).mode == "L"


def test_phones_add_pictures_to_jpeg_and_the_first_is_restored(tmp_path):
    file = tmp_path / "a.jpg"
    image = Image.fromarray(COLOURS)
    image.save(file, format="MPO", save_all=True, append_images=[image])
    with Image.open(rewritten(file)) as out:
        assert out.format == "JPEG"
        assert out.size == (23, 18)


def test_lossy_webp_stays_lossy(tmp_path):
    file = tmp_path / "a.webp"
    Image.fromarray(COLOURS).save(file, quality=80)
    assert b"VP8 " in rewritten(file).read_bytes()[:40]


def test_cmyk_becomes_rgb_without_the_old_profile(tmp_path):
    file = tmp_path / "a.jpg"
    Image.fromarray(COLOURS).convert("CMYK").save(file, quality=100)
    out = rewritten(file)
    assert Image.open(out).mode == "RGB"
    assert np.abs(read_photograph(out).colours.astype(int) - COLOURS).max() < 16


def test_previews_inside_exif_go_and_the_rest_stays():
    first = struct.pack("<HHHIII", 1, ORIENTATION, 3, 1, 6, 26)
    preview = struct.pack("<HHHIII", 1, 513, 4, 1, 99, 0)
    for heading in (b"Exif\0\0", b""):
        metadata = heading + b"II*\0" + struct.pack("<I", 8) + first + preview
        without = without_preview(metadata)
        assert len(without) == len(metadata)
        image = Image.Exif()
        image.load(without)
        assert dict(image) == {ORIENTATION: 6}
        assert image.get_ifd(1) == {}
    for odd in (b"", b"Exif\0\0", b"II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"):
        assert without_preview(odd) == odd


def test_unsupported_files_are_refused_in_a_line(tmp_path):
    image = Image.fromarray(COLOURS)
    image.save(tmp_path / "several.tif", save_all=True, append_images=[image])
    image.convert("F").save(tmp_path / "float.tif")
    image.convert("I").save(tmp_path / "int32.tif")
    image.save(tmp_path / "a.gif")
    image.save(tmp_path / "whole.png")
    (tmp_path / "odd.ppm").write_bytes(b"P6\n# odd\n1 1\n1023\n" + bytes(6))
    (tmp_path / "deep.png").write_bytes(deep_file("png", DEEP, 1)[:-200])
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no image")
    messages = {
        "several.tif": "several images",
        "float.tif": "neither of 8 nor of 16 bits",
        "int32.tif": "neither of 8 nor of 16 bits",
        "a.gif": "GIF",
        "odd.ppm": "1023",
        "deep.png": "truncated",
        "cut.png": "truncated",
        "text.jpg": "not a readable image",
        "none.jpg": "no such file",
    }
    for name, words in messages.items():
        with pytest.raises(DataError) as error:
            read_photograph(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
        assert words in str(error.value)
        assert "\n" not in str(error.value)


def test_levels_survive_the_conversion_to_floats_and_back():
    for dtype in (np.uint8, np.uint16):
        levels = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
        np.testing.assert_array_equal(to_levels(in_unit(levels), np.dtype(dtype)), levels)
