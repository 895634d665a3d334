"""Images with 16 bits per channel, by OpenCV: Pillow reads and writes them in gray only."""

from __future__ import annotations

import re
import struct
from types import ModuleType

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

ORIENTATION = 0x0112
"""EXIF tag of the orientation."""
UPRIGHT = {
    1: (False, 0),
    2: (True, 0),
    3: (False, 2),
    4: (True, 2),
    5: (True, 1),
    6: (False, 3),
    7: (True, 3),
    8: (False, 1),
}
"""By EXIF orientation: whether to mirror left and right, then the quarter turns to the left."""


def has_16_bits(image: Image.Image, content: bytes) -> bool:
    """Return whether the file opened as `image` has 16 bits per channel.

    `content` is the beginning of the file, 4096 bytes or more.
    """
    if isinstance(image, TiffImageFile):
        return 16 in image.tag_v2.get(258, ())  # BitsPerSample
    if image.format == "PNG":
        return content[24] == 16
    if image.format == "JPEG2000":
        return jpeg2000_bits(content) == 16
    return image.format == "PPM" and _largest_level(content) > 255


def decode_16_bits(image: Image.Image, content: bytes, orientation: int) -> np.ndarray:
    """Decode a file to the upright H x W x (1, 3 or 4) uint16 image.

    Raises ValueError for files that OpenCV does not read with 16 bits, and for PPM files whose
    largest level is not 65535.
    """
    cv2 = quiet_opencv()
    if image.format == "PPM" and _largest_level(content) != 65535:
        raise ValueError(f"its levels end at {_largest_level(content)}, not at 255 or 65535")
    if image.format == "PNG":
        _require_whole_chunks(content)
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16 or image.mode == "LA":
        raise ValueError(f"16 bits per channel are not supported in this {image.format} file")
    decoded = opencv_order(decoded if decoded.ndim == 3 else decoded[..., None])
    if image.format == "TIFF":  # which OpenCV turns upright itself
        return decoded
    mirrored, turns = UPRIGHT[orientation]
    return np.rot90(decoded[:, ::-1] if mirrored else decoded, turns)


def encode_16_bits(image: np.ndarray, suffix: str) -> bytes:
    """Encode H x W x (1, 3 or 4) uint16 without loss: as .png, .ppm, .pgm or .jp2.

    Raises ValueError if OpenCV cannot, as for JPEG 2000 of less than 32 pixels a side.
    """
    cv2 = quiet_opencv()
    settings = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000] if suffix == ".jp2" else []
    done, content = cv2.imencode(suffix, opencv_order(image), settings)
    if not done:
        raise ValueError(f"OpenCV cannot write {image.shape[1]} x {image.shape[0]} as {suffix}")
    return content.tobytes()


def quiet_opencv() -> ModuleType:
    """Import OpenCV, which would print a line for every damaged file."""
    import cv2  # here, so that importing the library does not load OpenCV

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


def opencv_order(image: np.ndarray) -> np.ndarray:
    """Exchange red and blue of H x W x (1, 3 or 4): from RGB to OpenCV's BGR or back."""
    return image if image.shape[2] == 1 else image[..., [2, 1, 0, 3][: image.shape[2]]]


def jpeg2000_bits(content: bytes) -> int:
    """Return the bits per channel that the header of a JPEG 2000 file announces; 0 if unknown."""
    codestream = content.find(b"\xff\x4f\xff\x51")
    depth = content[codestream + 42 : codestream + 43] if codestream >= 0 else b""
    header = content.find(b"ihdr")
    if not depth and header >= 0:
        depth = content[header + 14 : header + 15]
    return (depth[0] & 0x7F) + 1 if depth else 0


def _require_whole_chunks(content: bytes) -> None:
    """Raise ValueError for a PNG chunk that ends behind the file.

    OpenCV would allocate the length that it announces, up to 4 GiB.
    """
    at, kind = 8, b""
    while kind != b"IEND" and at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if length > len(content) - at - 8:
            raise ValueError("image file is truncated or damaged")
        at += 12 + length


def _largest_level(content: bytes) -> int:
    """Return the largest level that a PPM header announces; 0 if there is none."""
    found = re.match(rb"P[56]" + rb"(?:\s+(?:#[^\n]*\n\s*)*(\d+))" * 3, content)
    return int(found[3]) if found else 0
