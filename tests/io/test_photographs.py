"""Photographs keep their format and metadata; only the colours change."""

from __future__ import annotations

import dataclasses
import io
import struct
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps
from PIL.JpegImagePlugin import get_sampling
from PIL.TiffImagePlugin import IFDRational

from basicsr.io.images import read_image, to_levels
from basicsr.io.metadata import without_preview
from basicsr.io.photographs import read_photograph
from basicsr.io.sixteen_bits import encode_16_bits
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


@pytest.mark.parametrize("suffix", ["jp2", "tga", "bmp", "png", "tif"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_lossless_formats_stay_exact(tmp_path, suffix, mode):
    file = tmp_path / f"a.{suffix}"
    image = Image.fromarray(np.dstack([COLOURS, ALPHA])).convert(mode)
    image.save(file)
    photograph = read_photograph(file)
    assert photograph.left_out == []
    with Image.open(rewritten(file)) as out, Image.open(file) as source:
        assert (out.mode, out.format) == (source.mode, source.format)
        np.testing.assert_array_equal(np.asarray(out), np.asarray(source))


@pytest.mark.parametrize(("suffix", "difference"), [("jfif", 4), ("avif", 4), ("webp", 4)])
def test_lossy_formats_stay_close(tmp_path, suffix, difference):
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(COLOURS).save(file, quality=90)
    out = rewritten(file)
    with Image.open(out) as image:
        assert image.format == Image.open(file).format
    read = read_photograph(file).colours.astype(int)
    assert np.abs(read_photograph(out).colours - read).mean() < difference


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("suffix", ["avif", "heic"])
def test_metadata_of_avif_and_heic(tmp_path, suffix, orientation):
    if suffix == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    file = tmp_path / f"a.{suffix}"
    image = Image.fromarray(COLOURS).resize((64, 48))
    image.save(file, exif=exif(orientation), icc_profile=PROFILE, quality=95)
    photograph, out = read_photograph(file), rewritten(file)
    again = read_photograph(out)
    assert metadata_of(out) == metadata_of(file)
    turned = orientation > 4 and suffix == "avif"  # HEIC has another place for it
    assert photograph.colours.shape == ((64, 48, 3) if turned else (48, 64, 3))
    assert np.abs(again.colours.astype(int) - photograph.colours).mean() < 4


def test_heic_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(DataError, match=r"a\.heic: HEIC images need the package pillow-heif; inst"):
        read_photograph(tmp_path / "a.heic")


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bit_jpeg_2000(tmp_path, channels):
    image = np.tile(DEEP, (3, 2, 1))[..., :channels]
    file = tmp_path / "a.jp2"
    file.write_bytes(encode_16_bits(image, ".jp2"))
    np.testing.assert_array_equal(read_photograph(file).colours, image.repeat(3 // channels, 2))
    out = rewritten(file, lambda levels: 1 - levels)
    np.testing.assert_array_equal(read_image(out, "as_stored", "as_stored"), 65535 - image)


def test_a_photograph_that_cannot_be_written_is_named(tmp_path):
    file = tmp_path / "a.jp2"
    file.write_bytes(encode_16_bits(np.tile(DEEP, (3, 2, 1)), ".jp2"))
    photograph = dataclasses.replace(read_photograph(file), colours=DEEP)
    with pytest.raises(DataError, match=r"a\.jp2: cannot be written \(OpenCV cannot write 23 x 18"):
        photograph.encoded(in_unit(DEEP))


def test_notes_of_jpeg_2000_are_kept(tmp_path):
    file = tmp_path / "a.jp2"
    Image.fromarray(COLOURS).save(file)
    content = file.read_bytes()
    box = struct.pack(">I4s", 8 + 16 + 4, b"uuid") + bytes(16) + b"note"
    stream = content.find(b"jp2c") - 4
    file.write_bytes(content[:stream] + box + content[stream:] + box[:-2])
    out = rewritten(file).read_bytes()
    assert out.count(box) == 1
    raw = tmp_path / "a.j2k"
    Image.fromarray(COLOURS).save(raw, no_jp2=True)
    assert rewritten(raw).read_bytes().startswith(b"\xff\x4f\xff\x51")


def chunk(kind: bytes, data: bytes, damage: int = 0) -> bytes:
    checksum = zlib.crc32(kind + data) ^ damage
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


GOOD_CHROMATICITIES = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
SOUND = [
    (b"cHRM", GOOD_CHROMATICITIES),
    (b"gAMA", struct.pack(">I", 45455)),
    (b"sRGB", b"\0"),
    (b"iCCP", b"profile\0\0" + zlib.compress(PROFILE)),
    (b"pHYs", struct.pack(">IIB", 3000, 3000, 1)),
    (b"tIME", struct.pack(">H5B", 2024, 2, 29, 23, 59, 60)),
    (b"tEXt", b"Author\0me"),
    (b"zTXt", b"Author\0\0" + zlib.compress(b"me")),
    (b"iTXt", b"Author\0\0\0de\0Autor\0ich"),
    (b"iTXt", b"Author\0\1\0\0\0" + zlib.compress(b"me")),
    (b"eXIf", exif(1).tobytes()[6:]),
]
UNSOUND = [
    (b"cHRM", bytes(32)),
    (b"cHRM", GOOD_CHROMATICITIES[:16] * 2),
    (b"cHRM", b"\xff" * 32),
    (b"gAMA", bytes(4)),
    (b"sRGB", b"\4"),
    (b"iCCP", b"profile\0\0" + zlib.compress(b"no profile")),
    (b"iCCP", b"profile\0\0" + zlib.compress(PROFILE)[:-9]),
    (b"pHYs", bytes(8) + b"\2"),
    (b"tIME", struct.pack(">H5B", 2024, 13, 1, 0, 0, 0)),
    (b"tEXt", b"\0no keyword"),
    (b"tEXt", b"k" * 80 + b"\0too long"),
    (b"zTXt", b"Author\0\0" + zlib.compress(b"me")[:-3]),
    (b"iTXt", b"Author\0\0\0\0\0\xff\xfe"),
]


@pytest.mark.parametrize(("kind", "data"), SOUND)
def test_sound_png_chunks_are_kept(tmp_path, kind, data):
    file = tmp_path / "a.png"
    Image.fromarray(COLOURS).save(file)
    content = file.read_bytes()
    file.write_bytes(content[:33] + chunk(kind, data) + content[33:])
    assert read_photograph(file).left_out == []
    assert chunk(kind, data) in rewritten(file).read_bytes()


@pytest.mark.parametrize(("kind", "data"), UNSOUND)
def test_damaged_png_chunks_are_left_out_and_named(tmp_path, kind, data):
    file = tmp_path / "a.png"
    Image.fromarray(COLOURS).save(file)
    content = file.read_bytes()
    end = content.rindex(b"IDAT") - 4
    file.write_bytes(content[:33] + chunk(kind, data) + content[33:])
    try:
        photograph = read_photograph(file)
    except DataError:  # Pillow refuses it before the pixels
        file.write_bytes(content[:-12] + chunk(kind, data) + content[-12:])
        photograph = read_photograph(file)
    assert photograph.left_out == [f"{kind.decode()} (damaged)"]
    assert kind not in rewritten(file).read_bytes()[:end]


def test_what_follows_the_end_of_a_png_is_no_part_of_it(tmp_path):
    file = tmp_path / "a.png"
    Image.fromarray(COLOURS).save(file)
    whole, note = file.read_bytes(), chunk(b"tEXt", b"Author\0somebody")
    file.write_bytes(whole + note)
    assert rewritten(file).read_bytes().count(b"tEXt") == 0
    file.write_bytes(whole[:-12] + note + whole[-12:])
    assert rewritten(file).read_bytes().count(note) == 1


def test_misplaced_and_unknown_png_chunks_are_left_out_and_named(tmp_path):
    file = tmp_path / "a.png"
    Image.fromarray(COLOURS).save(file)
    content = file.read_bytes()
    gamma = chunk(b"gAMA", struct.pack(">I", 45455))
    late = gamma + chunk(b"caBX", b"credentials") + chunk(b"tEXt", b"a\0b", damage=1)
    file.write_bytes(content[:33] + gamma + gamma + content[33:-12] + late + content[-12:])
    assert read_photograph(file).left_out == ["gAMA (misplaced)", "caBX", "tEXt (damaged)"]
    assert rewritten(file).read_bytes().count(gamma) == 1


def damaged_exif(orientation: int) -> bytes:
    """Return EXIF data with a make, an orientation, and an entry that points outside.

    The damaged entry is the last one: Pillow before 13 does not read what stands behind it.
    """
    entries = [
        struct.pack("<HHI4s", 271, 2, 4, b"Cam\0"),
        struct.pack("<HHII", ORIENTATION, 3, 1, orientation),
        struct.pack("<HHII", 305, 2, 500, 9999),
    ]
    return b"II*\0" + struct.pack("<IH", 8, 3) + b"".join(entries) + bytes(4)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 6])
def test_readable_entries_of_damaged_exif_are_kept(tmp_path, suffix, orientation):
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(COLOURS).save(file, exif=b"Exif\0\0" + damaged_exif(orientation), quality=95)
    photograph, out = read_photograph(file), rewritten(file)
    assert photograph.left_out == ["damaged EXIF entries"]
    again = read_photograph(out)
    assert again.left_out == []
    assert again.orientation == photograph.orientation == orientation
    assert np.abs(again.colours.astype(int) - photograph.colours).mean() < 6
    assert metadata_of(out)["make"] == "Cam"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
@pytest.mark.parametrize("profile", [b"no profile", PROFILE[:200], PROFILE[:300] + bytes(300)])
def test_damaged_profiles_are_left_out_and_named(tmp_path, suffix, profile):
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(COLOURS).save(file, icc_profile=profile)
    (words,) = read_photograph(file).left_out
    assert words == ("iCCP (damaged)" if suffix == "png" else "the ICC profile")
    assert metadata_of(rewritten(file))["profile"] is None


def test_geotiff_tags_and_private_tags_are_kept(tmp_path):
    file = tmp_path / "a.tif"
    tags = [
        (33550, "d", 3, (0.5, 0.5, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 440720.0, 3751320.0, 0.0), True),
        (34735, "H", 8, (1, 1, 0, 1, 1024, 0, 1, 1), True),
        (34737, "s", 0, "UTM zone 32N|", True),
        (42113, "s", 0, "-9999", True),
        (65001, "I", 2, (7, 8), True),
    ]
    tifffile.imwrite(file, COLOURS, photometric="rgb", extratags=tags, metadata=None)
    photograph, out = read_photograph(file), rewritten(file)
    assert photograph.left_out == []
    with tifffile.TiffFile(out) as written, tifffile.TiffFile(file) as source:
        for tag, *_ in tags:
            assert written.pages[0].tags[tag].value == source.pages[0].tags[tag].value
    np.testing.assert_array_equal(tifffile.imread(out), COLOURS)


def test_smaller_versions_in_a_tiff_are_left_out_and_named(tmp_path):
    file = tmp_path / "a.tif"
    with tifffile.TiffWriter(file) as writer:
        writer.write(COLOURS, photometric="rgb", metadata=None)
        writer.write(COLOURS[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
    assert read_photograph(file).left_out == ["smaller versions of the image"]
    with Image.open(rewritten(file)) as out:
        assert out.n_frames == 1


def test_what_jpeg_files_hold_beside_the_photograph_is_named(tmp_path):
    file = tmp_path / "a.jpg"
    image = Image.fromarray(COLOURS)
    image.save(file, format="MPO", save_all=True, append_images=[image])
    assert read_photograph(file).left_out == ["further pictures"]
    extra = b"\xff\xeb" + struct.pack(">H", 12) + b"credential"
    image.save(file, extra=extra)
    assert read_photograph(file).left_out == ["APP11"]


@pytest.mark.parametrize("progressive", [True, False])
@pytest.mark.parametrize("orientation", [1, 6])
def test_noise_can_be_written_as_jpeg(tmp_path, progressive, orientation):
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    file = tmp_path / "a.jpg"
    settings = {"progressive": True, "quality": 50} if progressive else {}
    Image.fromarray(noise).save(file, subsampling=0, exif=exif(orientation), **settings)
    noise = noise if orientation == 1 else np.rot90(noise)
    out = tmp_path / "out.jpg"
    out.write_bytes(read_photograph(file).encoded(in_unit(np.ascontiguousarray(noise))))
    read = read_photograph(out)
    assert ("progressive" in Image.open(out).info) == progressive
    assert read.left_out == []
    assert np.abs(read.colours.astype(int) - noise).mean() < 4


def test_metadata_that_cannot_be_written_are_left_out_and_named(tmp_path, monkeypatch):
    file = tmp_path / "a.jpg"
    Image.fromarray(COLOURS).save(file, exif=exif(6))
    photograph = read_photograph(file)

    def refuse(_):
        raise ValueError("EXIF data is too long")

    broken = dataclasses.replace(photograph, encoder=photograph.encoder._replace(write=refuse))
    out = tmp_path / "out.jpg"
    out.write_bytes(broken.encoded(in_unit(photograph.colours)))
    assert broken.left_out == ["all metadata, as they cannot be written"]
    again = read_photograph(out)
    assert again.orientation == 1
    assert np.abs(again.colours.astype(int) - photograph.colours).mean() < 4

    worse = broken.encoder._replace(write_bare=lambda _: b"no image")
    with pytest.raises(DataError, match=r"a\.jpg: cannot be written so that it can be read \("):
        dataclasses.replace(broken, encoder=worse).encoded(in_unit(photograph.colours))
