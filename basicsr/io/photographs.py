"""Photographs with what their files hold beside the colours, so that they are written as they came.

Elsewhere in the library an image is its colours (`image_files`); here it also has its format, bits
per channel and transparency, and what the camera and the photographer noted in it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from basicsr.io.images import opened, reason, to_levels
from basicsr.io.photo_formats import encoder, opencv_order
from basicsr.utils.errors import DataError

_ORIENTATION = 0x0112
# by EXIF orientation: whether to mirror left and right, and then the quarter turns to the left
_UPRIGHT = {
    1: (False, 0),
    2: (True, 0),
    3: (False, 2),
    4: (True, 2),
    5: (True, 1),
    6: (False, 3),
    7: (True, 3),
    8: (False, 1),
}
_GRAY = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B"})


@dataclass(frozen=True)
class Photograph:
    """An image, and how its file is written.

    Args:
        colours: H x W x 3 uint8 or uint16 RGB, upright; of gray images three equal channels.
        gray: whether the file has a single channel of colour.
        alpha: H x W transparency, upright, or None.
        orientation: the EXIF orientation that the file tells.
        profile: the ICC profile of the colours, where there is one and they are not gray.
        encode: from the image as the file stores it, with 1 or 3 channels and alpha as one more,
            to the whole file.
    """

    colours: np.ndarray
    gray: bool
    alpha: np.ndarray | None
    orientation: int
    profile: bytes | None
    encode: Callable[[np.ndarray], bytes]

    def encoded(self, restored: np.ndarray) -> bytes:
        """The file with `restored`, H x W x 3 upright in [0, 1], in place of the colours."""
        if self.gray:
            restored = restored.mean(axis=2, keepdims=True)
        image = to_levels(restored, self.colours.dtype)
        if self.alpha is not None:
            image = np.dstack([image, self.alpha])
        mirrored, turns = _UPRIGHT[self.orientation]
        image = np.rot90(image, -turns)
        return self.encode(np.ascontiguousarray(image[:, ::-1] if mirrored else image))


def read_photograph(path: str | Path) -> Photograph:
    """Read a photograph with 8 or 16 bits per channel.

    CMYK is converted to sRGB by its profile, a palette to its colours. Raises DataError for files
    that are missing, truncated or no images, hold several images or other levels, or are larger
    than Pillow's limit against decompression bombs.
    """
    with opened(path) as image:
        try:
            return _read(image, Path(path).read_bytes())
        except Exception as error:  # decoders raise anything for broken files
            raise DataError(f"{path}: cannot be restored ({reason(error)})") from error


def _read(image: Image.Image, content: bytes) -> Photograph:
    if not isinstance(image, JpegImageFile) and getattr(image, "n_frames", 1) > 1:
        raise ValueError("it holds several images; save the one to restore as its own file")
    orientation = image.getexif().get(_ORIENTATION, 1)
    orientation = orientation if orientation in _UPRIGHT else 1
    encode = encoder(image, content)
    deep = _has_16_bits(image, content)
    image.load()  # even where OpenCV decodes it again: it is Pillow that tells of missing parts
    gray = image.mode in _GRAY
    pixels = _deep_pixels(image, content, orientation) if deep else _pixels(image, gray)
    alpha = pixels[..., -1] if pixels.shape[2] % 2 == 0 else None
    colours = np.repeat(pixels[..., :1], 3, axis=2) if gray else pixels[..., :3]
    profile = None if gray or image.mode == "CMYK" else image.info.get("icc_profile")
    return Photograph(colours, gray, alpha, orientation, profile, encode)


def _pixels(image: Image.Image, gray: bool) -> np.ndarray:
    """The upright image, H x W x C uint8."""
    if image.mode == "F" or image.mode.startswith("I"):
        raise ValueError("its levels are neither of 8 nor of 16 bits")
    if image.mode == "CMYK" and (profile := image.info.get("icc_profile")):
        image = ImageOps.exif_transpose(image)
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        return np.array(ImageCms.profileToProfile(image, source, srgb, outputMode="RGB"))
    mode = ("L" if gray else "RGB") + ("A" if image.has_transparency_data else "")
    pixels = np.array(ImageOps.exif_transpose(image).convert(mode))
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _has_16_bits(image: Image.Image, content: bytes) -> bool:
    if isinstance(image, TiffImageFile):
        return 16 in image.tag_v2.get(258, ())
    if image.format == "PNG":
        return content[24] == 16
    return image.format == "PPM" and _largest_level(content) > 255


def _largest_level(content: bytes) -> int:
    found = re.match(rb"P[56]" + rb"(?:\s+(?:#[^\n]*\n\s*)*(\d+))" * 3, content)
    return int(found[3]) if found else 0


def _deep_pixels(image: Image.Image, content: bytes, orientation: int) -> np.ndarray:
    """The upright image, H x W x C uint16, by OpenCV, since Pillow knows 16 bits in gray only."""
    import cv2

    if image.format == "PPM" and _largest_level(content) != 65535:
        raise ValueError(f"its levels end at {_largest_level(content)}, not at 255 or 65535")
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16 or (image.mode == "LA"):
        raise ValueError(f"16 bits per channel are not supported in this kind of {image.format}")
    decoded = opencv_order(decoded if decoded.ndim == 3 else decoded[..., None])
    if image.format == "TIFF":  # comes upright already
        return decoded
    mirrored, turns = _UPRIGHT[orientation]
    return np.rot90(decoded[:, ::-1] if mirrored else decoded, turns)
