"""Write photographs in the format and with the metadata of the file they were read from.

PNG chunks, JPEG segments and JPEG 2000 boxes are copied byte by byte; of TIFF the descriptive tags
are copied. Damaged metadata is left out, and so is what describes the original pixels.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile, get_sampling
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TgaImagePlugin import TgaImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from basicsr.io.metadata import Kept, is_sound_png_chunk, is_sound_profile, kept_exif
from basicsr.io.sixteen_bits import encode_16_bits
from basicsr.io.tiff_files import alpha_kind, descriptive_tags, encode_tiff

QUALITY = 95  # of JPEG and lossy WebP; above it files grow without a visible gain
_AVIF_QUALITY = 90  # of AVIF and HEIC, whose scale differs
_JPEG_2000_DECIBELS = 50
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NOTES = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_BEFORE_PIXELS = frozenset(b"cHRM gAMA iCCP sRGB cICP mDCV cLLI pHYs".split())
_CHUNKS = _BEFORE_PIXELS | _NOTES | {b"eXIf", b"tIME"}
_PIXEL_CHUNKS = frozenset(b"IHDR PLTE IDAT tRNS iDOT hIST acTL fcTL fdAT".split())
_WEBP_CHUNKS = frozenset(b"VP8X,VP8 ,VP8L,ALPH,ANIM,ANMF,ICCP,EXIF,XMP ".split(b","))
_COPIED_BOXES = frozenset({b"xml ", b"uuid"})

Write = Callable[..., bytes]


class Encoder(NamedTuple):
    """How a file like the one that was read is written.

    Args:
        write: function from H x W x C pixels to the content of the file. C is 1 or 3, plus 1 with
            alpha; levels are uint8, in PNG, TIFF, JPEG 2000 and PPM also uint16.
        write_bare: the same without metadata.
        lossless: whether reading the file gives the same pixels.
        left_out: in words, what the new file lacks.
    """

    write: Write
    write_bare: Write
    lossless: bool
    left_out: tuple[str, ...] = ()


def encoder(image: Image.Image, content: bytes, gray: bool) -> Encoder:
    """Return how files like `content` are written.

    Previews are left out, since they show the original image; so is a CMYK profile.

    Args:
        image: the file as Pillow opened it, not yet decoded.
        content: its bytes.
        gray: whether the photograph has a single channel of colour.

    Raises:
        ValueError: files of this format are not written.
    """
    match image:
        case JpegImageFile():
            return _jpeg(image, gray)
        case PngImageFile():
            chunks, left_out = png_metadata(content, gray)
            return Encoder(partial(_png, chunks=chunks), _png, True, left_out)
        case TiffImageFile():
            tags, left_out = descriptive_tags(image, gray)
            write = partial(encode_tiff, tags=tags, alpha=alpha_kind(image))
            bare = partial(encode_tiff, tags=ImageFileDirectory_v2(), alpha=alpha_kind(image))
            return Encoder(write, bare, True, left_out)
        case WebPImageFile():
            return _webp(image, content, gray)
        case AvifImageFile():
            return _avif(image, content, gray)
        case Jpeg2KImageFile():
            return _jpeg_2000(content)
        case BmpImageFile():
            return _plain({"format": str(image.format)}, _resolution(image))
        case TgaImageFile():
            return _plain({"format": "TGA", "compression": image.info.get("compression")})
        case PpmImageFile():
            return Encoder(_ppm, _ppm, True)
    if image.format == "HEIF":
        return _heic(image, content, gray)
    raise ValueError(f"{image.format} is not written; convert the image to PNG or JPEG")


def pillow_metadata(image: Image.Image, gray: bool) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Return EXIF, ICC profile and XMP as arguments of Pillow's `save`, and what is left out."""
    metadata: dict[str, bytes] = {}
    left_out: tuple[str, ...] = ()
    if image.info.get("xmp"):
        metadata["xmp"] = image.info["xmp"]
    if image.info.get("exif"):
        metadata["exif"], left_out = kept_exif(image.info["exif"])
    if profile := image.info.get("icc_profile"):
        if is_sound_profile(profile, gray):
            metadata["icc_profile"] = profile
        else:
            left_out += ("the ICC profile",)
    return {name: data for name, data in metadata.items() if data}, left_out


def png_with(content: bytes, chunks: bytes) -> bytes:
    """Return a PNG file with chunks inserted behind its header."""
    header = len(_SIGNATURE) + 25
    return content[:header] + chunks + content[header:]


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yield type and data of the chunks up to IEND, and whether their checksum is right."""
    at = len(_SIGNATURE)
    while at + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        data = content[at + 8 : at + 8 + length]
        checksum = content[at + 8 + length : at + 12 + length]
        if kind == b"IEND":
            return
        yield kind, data, checksum == _checksum(kind + data)
        at += 12 + length


def riff_kinds(content: bytes) -> Iterator[bytes]:
    """Yield the types of the chunks of a WebP file."""
    at, end = 12, min(len(content), 8 + int.from_bytes(content[4:8], "little"))
    while at + 8 <= end:
        yield content[at : at + 4]
        at += 8 + (struct.unpack_from("<I", content, at + 4)[0] + 1) // 2 * 2


def _pillow(image: np.ndarray, save: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    height, width, channels = image.shape
    # Pillow's buffer is too small for the progressive JPEG of noise
    before = ImageFile.MAXBLOCK
    ImageFile.MAXBLOCK = max(before, 4 * height * width + 2**20 if "progressive" in save else 0)
    try:
        Image.fromarray(image[..., 0] if channels == 1 else image).save(file, **save)
    finally:
        ImageFile.MAXBLOCK = before
    return file.getvalue()


def _plain(save: dict[str, Any], metadata: dict[str, Any] | None = None) -> Encoder:
    full = partial(_pillow, save={**save, **(metadata or {})})
    return Encoder(full, partial(_pillow, save=save), True)


def _lossy(
    save: dict[str, Any],
    metadata: dict[str, Any],
    left_out: tuple[str, ...],
    lossless: bool = False,
) -> Encoder:
    full = partial(_pillow, save={**save, **metadata})
    return Encoder(full, partial(_pillow, save=save), lossless, left_out)


def _resolution(image: Image.Image) -> dict[str, Any]:
    return {"dpi": image.info["dpi"]} if "dpi" in image.info else {}


def _jpeg(image: JpegImageFile, gray: bool) -> Encoder:
    segments: list[bytes] = []
    left_out: list[str] = []
    profile = image.info.get("icc_profile") or b""
    keeps_profile = image.mode != "CMYK" and is_sound_profile(profile, gray)
    if profile and not keeps_profile and image.mode != "CMYK":
        left_out.append("the ICC profile")
    has_exif = False
    for name, data in image.applist:
        if data.startswith(b"Exif\0\0"):
            kept = kept_exif(data) if not has_exif else Kept(b"")
            has_exif = True
            data, words = kept
            left_out += words
        elif data.startswith(b"ICC_PROFILE\0"):
            data = data if keeps_profile else b""
        elif name not in ("APP1", "APP13", "COM"):  # XMP; IPTC
            if name not in ("APP0", "APP14"):  # which describe the encoding
                left_out.append("further pictures" if data.startswith(b"MPF") else name)
            data = b""
        if data:
            marker = 0xFE if name == "COM" else 0xE0 + int(name[3:])
            segments.append(struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data)
    save = {
        "format": "JPEG",
        "quality": QUALITY,
        "subsampling": max(get_sampling(image), 0),
        "progressive": "progressive" in image.info,
    }
    metadata = {"extra": b"".join(segments), **_resolution(image)}
    return _lossy(save, metadata, tuple(dict.fromkeys(left_out)))


def _webp(image: Image.Image, content: bytes, gray: bool) -> Encoder:
    metadata, left_out = pillow_metadata(image, gray)
    kinds = list(riff_kinds(content))
    others = sorted({kind for kind in kinds if kind not in _WEBP_CHUNKS})
    left_out += tuple(kind.decode("ascii", "backslashreplace") for kind in others)
    lossless = b"VP8L" in kinds
    save = {"format": "WEBP", "quality": QUALITY, "lossless": lossless, "exact": True}
    return _lossy(save, metadata, left_out, lossless)


def _avif(image: Image.Image, content: bytes, gray: bool) -> Encoder:
    metadata, left_out = pillow_metadata(image, gray)
    at = content.find(b"av1C") + 6
    coding = content[at] if 6 <= at < len(content) else 0
    if coding & 0x40:
        left_out += (f"{12 if coding & 0x20 else 10} bits per channel (8 are written)",)
    sampling = {0x0C: "4:2:0", 0x08: "4:2:2"}.get(coding & 0x0C, "4:4:4")
    save = {"format": "AVIF", "quality": _AVIF_QUALITY, "subsampling": sampling}
    return _lossy(save, metadata, left_out)


def _heic(image: Image.Image, content: bytes, gray: bool) -> Encoder:
    metadata, left_out = pillow_metadata(image, gray)
    at = content.find(b"hvcC") + 21
    depth = 8 + (content[at] & 7) if 21 <= at < len(content) else 8
    if depth > 8:
        left_out += (f"{depth} bits per channel (8 are written)",)
    if getattr(image, "n_frames", 1) > 1:
        left_out += ("further pictures",)
    return _lossy({"format": "HEIF", "quality": _AVIF_QUALITY}, metadata, left_out)


def _jpeg_2000(content: bytes) -> Encoder:
    start = content.find(b"\xff\x52", content.find(b"\xff\x4f\xff\x51"))  # the coding style
    lossless = content[start + 13 : start + 14] == b"\1"
    save: dict[str, Any] = {"format": "JPEG2000", "no_jp2": content.startswith(b"\xff\x4f")}
    if not lossless:
        save |= {
            "irreversible": True,
            "quality_mode": "dB",
            "quality_layers": [_JPEG_2000_DECIBELS],
        }
    boxes = b"".join(data for kind, data in _boxes(content) if kind in _COPIED_BOXES)
    header = next((data for kind, data in _boxes(content) if kind == b"jp2h"), b"")
    colours = header.find(b"colr")
    left_out = ("the ICC profile",) if header[colours + 4 : colours + 5] == b"\2" else ()

    def write(image: np.ndarray, boxes: bytes = b"") -> bytes:
        deep = image.dtype == np.uint16
        made = encode_16_bits(image, ".jp2") if deep else _pillow(image, save)
        stream = made.find(b"jp2c") - 4
        return made[:stream] + boxes + made[stream:] if stream >= 0 else made

    return Encoder(partial(write, boxes=boxes), write, lossless, left_out)


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the types of the complete boxes of a JPEG 2000 file, and their bytes."""
    at = 0
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if not 8 <= length <= len(content) - at:  # up to the end, longer than 4 GiB, or damaged
            return
        yield kind, content[at : at + length]
        at += length


def png_metadata(content: bytes, gray: bool) -> tuple[bytes, tuple[str, ...]]:
    """Return the chunks of a PNG file that are kept, and in words what is left out."""
    chunks: list[bytes] = []
    left_out: list[str] = []
    seen: set[bytes] = set()
    pixels = False
    for kind, data, is_whole in png_chunks(content):
        name = kind.decode("ascii", "backslashreplace")
        pixels |= kind == b"IDAT"
        if kind == b"eXIf" and is_whole and kind not in seen:
            data, words = kept_exif(data)
            left_out += words
        elif kind not in _CHUNKS:
            left_out += [] if kind in _PIXEL_CHUNKS else [name]
            continue
        elif not is_whole or not is_sound_png_chunk(kind, data, gray):
            left_out.append(f"{name} (damaged)")
            continue
        elif (kind in seen and kind not in _NOTES) or (pixels and kind in _BEFORE_PIXELS):
            left_out.append(f"{name} (misplaced)")
            continue
        seen.add(kind)
        if data or kind in _NOTES:
            chunks.append(struct.pack(">I", len(data)) + kind + data + _checksum(kind + data))
    return b"".join(chunks), tuple(dict.fromkeys(left_out))


def _checksum(data: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(data))


def _png(image: np.ndarray, chunks: bytes = b"") -> bytes:
    if image.dtype == np.uint16:
        return png_with(encode_16_bits(image, ".png"), chunks)
    return png_with(_pillow(image, {"format": "PNG", "compress_level": 4}), chunks)


def _ppm(image: np.ndarray) -> bytes:
    if image.dtype == np.uint16:
        return encode_16_bits(image, ".pgm" if image.shape[2] == 1 else ".ppm")
    return _pillow(image, {"format": "PPM"})
