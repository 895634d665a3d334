"""Write photographs in the format and with the metadata of the file they were read from.

PNG chunks and JPEG segments are copied byte by byte; of TIFF the descriptive tags are copied.
"""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile, get_sampling
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from basicsr.io.sixteen_bits import encode_16_bits

QUALITY = 95  # of JPEG and lossy WebP; above it files grow without a visible gain
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNKS = frozenset(b"cHRM gAMA iCCP sRGB cICP mDCV cLLI pHYs eXIf tEXt zTXt iTXt tIME".split())
_TAGS = (  # description, make, model, orientation, resolutions, software, date, artist, host,
    # XMP, rating, copyright, IPTC, Photoshop's, ICC
    *(270, 271, 272, 274, 282, 283, 296, 305, 306, 315, 316),
    *(700, 18246, 18249, 33432, 33723, 34377, 34675),
)
_ICC_TAG, _EXIF_TAG, _GPS_TAG, _INTEROPERABILITY_TAG = 34675, 34665, 34853, 40965
_ROWS = 64  # per TIFF strip

Encoder = Callable[[np.ndarray], bytes]


def encoder(image: Image.Image, content: bytes) -> Encoder:
    """Return a function that encodes H x W x C pixels to a file like `content`.

    C is 1 or 3, plus 1 with alpha; levels are uint8, in PNG, TIFF and PPM also uint16. Previews
    inside EXIF are dropped, since they show the original image; so is a CMYK profile.

    Args:
        image: the file as Pillow opened it.
        content: its bytes.

    Raises:
        ValueError: files of this format are not written.
    """
    match image:
        case JpegImageFile():
            return partial(_pillow, save=_jpeg_settings(image))
        case PngImageFile():
            return partial(_png, chunks=b"".join(_png_metadata(content)))
        case TiffImageFile():
            return partial(_tiff, tags=_tiff_tags(image), alpha_kind=_alpha_kind(image))
        case WebPImageFile():
            return partial(_pillow, save=_webp_settings(image, content))
        case BmpImageFile():
            return partial(_pillow, save={"format": "BMP", **_resolution(image)})
        case PpmImageFile():
            return _ppm
    raise ValueError(f"{image.format} is not written; convert the image to PNG or JPEG")


def without_preview(exif: bytes) -> bytes:
    """Return EXIF data, with or without its `Exif` heading, without the pointer to a preview."""
    start = 6 if exif.startswith(b"Exif\0\0") else 0
    order = {b"II": "<", b"MM": ">"}.get(exif[start : start + 2])
    try:
        (first,) = struct.unpack_from(f"{order}I", exif, start + 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, start + first)
    except struct.error:  # damaged beyond the point where a reader would find a preview
        return exif
    pointer = start + first + 2 + 12 * entries
    return exif[:pointer] + bytes(len(exif[pointer : pointer + 4])) + exif[pointer + 4 :]


def _pillow(image: np.ndarray, save: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, **save)
    return file.getvalue()


def _resolution(image: Image.Image) -> dict[str, Any]:
    return {"dpi": image.info["dpi"]} if "dpi" in image.info else {}


def _jpeg_settings(image: JpegImageFile) -> dict[str, Any]:
    kept = []
    for name, data in image.applist:
        if data.startswith(b"Exif\0\0"):
            data = without_preview(data)
        elif data.startswith(b"ICC_PROFILE\0"):
            if image.mode == "CMYK":
                continue
        elif name not in ("APP1", "APP13", "COM"):  # XMP; IPTC
            continue
        marker = 0xFE if name == "COM" else 0xE0 + int(name[3:])
        kept.append(struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data)
    return {
        "format": "JPEG",
        "quality": QUALITY,
        "subsampling": max(get_sampling(image), 0),
        "progressive": "progressive" in image.info,
        "extra": b"".join(kept),
        **_resolution(image),
    }


def _webp_settings(image: Image.Image, content: bytes) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        name: image.info[name] for name in ("icc_profile", "xmp") if name in image.info
    }
    if "exif" in image.info:
        metadata["exif"] = without_preview(image.info["exif"])
    lossless = any(kind == b"VP8L" for kind in _riff_kinds(content))
    return {"format": "WEBP", "quality": QUALITY, "lossless": lossless, "exact": True, **metadata}


def _riff_kinds(content: bytes) -> Iterator[bytes]:
    at = 12
    while at + 8 <= len(content):
        yield content[at : at + 4]
        at += 8 + (struct.unpack_from("<I", content, at + 4)[0] + 1) // 2 * 2


def _png_metadata(content: bytes) -> Iterator[bytes]:
    at = len(_SIGNATURE)
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        data = content[at + 8 : at + 8 + length]
        if kind in _CHUNKS:
            data = without_preview(data) if kind == b"eXIf" else data
            yield struct.pack(">I", len(data)) + kind + data + _checksum(kind + data)
        at += 12 + length


def _checksum(data: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(data))


def _png(image: np.ndarray, chunks: bytes) -> bytes:
    if image.dtype == np.uint16:
        content = encode_16_bits(image, ".png")
    else:
        content = _pillow(image, {"format": "PNG", "compress_level": 4})
    header = len(_SIGNATURE) + 25
    return content[:header] + chunks + content[header:]


def _ppm(image: np.ndarray) -> bytes:
    if image.dtype == np.uint16:
        return encode_16_bits(image, ".pgm" if image.shape[2] == 1 else ".ppm")
    return _pillow(image, {"format": "PPM"})


def _tiff_tags(image: TiffImageFile) -> ImageFileDirectory_v2:
    """Return the tags to keep. Pillow drops some when it decodes the image: call it before."""
    source, kept = image.tag_v2, ImageFileDirectory_v2()
    for tag in _TAGS:
        if tag in source and not (tag == _ICC_TAG and image.mode == "CMYK"):
            kept.tagtype[tag] = source.tagtype[tag]
            kept[tag] = source[tag]
    for tag in (_EXIF_TAG, _GPS_TAG):
        fields = image.getexif().get_ifd(tag)
        fields.pop(_INTEROPERABILITY_TAG, None)  # an offset in the original file
        if fields:
            kept[tag] = fields
    return kept


def _alpha_kind(image: TiffImageFile) -> int:
    """Return TIFF's ExtraSamples: 1 for colours multiplied by alpha, else 2.

    Pillow decodes 8-bit images to the latter.
    """
    return 1 if 16 in image.tag_v2.get(258, ()) and image.tag_v2.get(338) == (1,) else 2


def _tiff(image: np.ndarray, tags: ImageFileDirectory_v2, alpha_kind: int) -> bytes:
    """Encode as TIFF 6.0 with Deflate and horizontal differencing; Pillow writes no 16-bit RGB."""
    height, width, channels = image.shape
    differences = image.astype(image.dtype.newbyteorder("<"))
    differences[:, 1:] -= image[:, :-1]
    strips = [
        zlib.compress(differences[top : top + _ROWS].tobytes()) for top in range(0, height, _ROWS)
    ]
    sizes = [len(strip) for strip in strips]
    layout = {
        256: width,
        257: height,
        258: (8 * image.itemsize,) * channels,
        259: 8,  # Deflate
        262: 1 if channels < 3 else 2,  # black is zero, or RGB
        273: (0, *itertools.accumulate(sizes[:-1])),  # strip offsets; Pillow adds the tags' length
        277: channels,
        278: _ROWS,
        279: tuple(sizes),
        317: 2,  # horizontal differences
    }
    if channels % 2 == 0:
        layout[338] = alpha_kind
    for tag, value in layout.items():
        tags[tag] = value
    file = io.BytesIO()
    tags.save(file)
    return file.getvalue() + b"".join(strips)
