"""Read and write image files as H x W x C arrays: one gray channel or three of RGB."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from basicsr.io.folders import images_by_stem, list_images, natural_key
from basicsr.io.opening import (
    SUFFIXES,
    bounded,
    opened,
    reason,
)
from basicsr.io.sixteen_bits import (
    ORIENTATION,
    UPRIGHT,
    decode_16_bits,
    encode_16_bits,
    has_16_bits,
    quiet_opencv,
)
from basicsr.utils.errors import DataError
from basicsr.utils.files import atomic_write

__all__ = [
    "SUFFIXES",
    "BitDepth",
    "Color",
    "ImageFormat",
    "image_format",
    "image_size",
    "images_by_stem",
    "list_images",
    "natural_key",
    "read_image",
    "to_levels",
    "write_png",
]

Color = Literal["gray", "rgb", "as_stored"]
BitDepth = Literal[8, 16, "as_stored"]

GRAY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"})
"""Pillow's modes with a single channel of colour."""
_TURNED = frozenset({5, 6, 7, 8})  # EXIF orientations that swap width and height
_PNG_TYPES = (np.uint8, np.uint16)
_BAND_PIXELS = 2**20


def read_image(path: str | Path, color: Color = "rgb", bit_depth: BitDepth = 8) -> np.ndarray:
    """Decode a file to an H x W x C array, turned upright as its EXIF orientation says.

    CMYK and palettes are converted to RGB. An alpha channel is dropped, as OpenCV does, so that
    stored colours stay as they are. Of several frames the first is read. Damage that leaves the
    structure intact is found in PNG only, the one format here with checksums.

    Args:
        path: file of a supported format; the suffix does not matter.
        color: "rgb" repeats a gray channel three times; "gray" converts RGB by OpenCV's weights
            (ITU-R BT.601); "as_stored" gives one channel for gray files and three for others.
        bit_depth: 8 scales 16-bit files to uint8; 16 scales 8-bit files to uint16 (times 257);
            "as_stored" gives uint16 for files with 16 bits per channel and uint8 for others.

    Raises:
        DataError: the file is missing, truncated, not an image, has 32-bit or floating-point
            levels, or is above the limits of `basicsr.io.opening`.
    """
    with opened(path) as image:
        try:
            if bit_depth != 8 and has_16_bits(image, bounded(image).head()):
                return _in_color(_sixteen_bit_pixels(image), color)
            pixels = _in_color(eight_bit_pixels(image), color)
        except Exception as error:  # Pillow's decoders raise anything for broken files
            raise DataError(f"{path}: cannot be decoded ({reason(error)})") from error
    return pixels.astype(np.uint16) * 257 if bit_depth == 16 else pixels


class ImageFormat(NamedTuple):
    """Size, channels and type of an array that `read_image` returns."""

    height: int
    width: int
    channels: int
    dtype: np.dtype

    @property
    def shape(self) -> tuple[int, int, int]:
        return self[:3]

    @property
    def nbytes(self) -> int:
        return self.height * self.width * self.channels * self.dtype.itemsize


def image_format(path: str | Path, color: Color = "rgb", bit_depth: BitDepth = 8) -> ImageFormat:
    """Return the format in which `read_image` gives the image, from the file's header alone.

    An orientation that stands behind the pixels of a PNG is not seen: height and width are then
    exchanged.

    Raises DataError as `read_image` does, as far as the header shows a fault.
    """
    with opened(path) as image:
        head = bounded(image).head()
        deep = bit_depth == 16 or (bit_depth == "as_stored" and has_16_bits(image, head))
        gray = color == "gray" or (color == "as_stored" and image.mode in GRAY_MODES)
        width, height = image.size
        # the PNG plugin's own getexif decodes the whole image to look behind its pixels
        turned = Image.Image.getexif(image).get(ORIENTATION) in _TURNED
        turned &= image.format != "TIFF"  # Pillow gives the upright size of a TIFF
    if turned:
        width, height = height, width
    return ImageFormat(height, width, 1 if gray else 3, np.dtype(np.uint16 if deep else np.uint8))


def image_size(path: str | Path) -> tuple[int, int]:
    """Return (height, width) of the upright image, from the file's header alone.

    Raises DataError as `image_format` does.
    """
    return image_format(path)[:2]


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write an H x W x 3, H x W x 1 or H x W image of uint8 or uint16.

    Parent folders are made. The file appears when it is complete. Raises TypeError for other
    arrays.
    """
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in (1, 3) or image.dtype not in _PNG_TYPES:
        raise TypeError(f"no PNG holds {image.dtype} of shape {image.shape}")
    image = image.reshape(*image.shape[:2], channels)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if image.dtype == np.uint16:
        content = encode_16_bits(image, ".png")
    else:
        encoded = io.BytesIO()
        pixels = image[..., 0] if channels == 1 else image
        Image.fromarray(pixels).save(encoded, format="PNG", compress_level=3)
        content = encoded.getvalue()
    with atomic_write(path, sync=False) as file:
        file.write(content)


def to_levels(image: np.ndarray, dtype: npt.DTypeLike, mode: str = "round") -> np.ndarray:
    """Convert an image in [0, 1] to uint8 or uint16; `mode` is "round" or "truncate"."""
    scaled = image * np.float32(np.iinfo(np.dtype(dtype)).max)
    return (scaled if mode == "truncate" else scaled.round()).astype(dtype)


def eight_bit_pixels(image: Image.Image, alpha: bool = False) -> np.ndarray:
    """Decode an opened image to the upright H x W x (1 or 3) uint8 array.

    Args:
        image: as `opened` gives it, not yet decoded.
        alpha: append the transparency as a further channel where there is one.

    Raises ValueError for levels of 32 bits and floating-point levels.
    """
    if image.mode == "F":
        raise ValueError("floating-point levels; save it with 8 or 16 bits per channel")
    if image.format == "WEBP" and not getattr(image, "is_animated", False):
        return upright(_webp_pixels(image, alpha), image)
    image.load()
    alpha &= image.has_transparency_data
    if not alpha:
        image.info.pop("transparency", None)  # Pillow would warn that it is dropped
    gray = image.mode in GRAY_MODES
    mode = ("L" if gray else "RGB") + ("A" if alpha else "")
    pixels = np.empty((image.height, image.width, len(mode)), np.uint8)
    rows = max(_BAND_PIXELS // image.width, 1)
    for top in range(0, image.height, rows):  # the copies of a whole image would need much memory
        bottom = min(top + rows, image.height)
        whole = bottom - top == image.height
        band = image if whole else image.crop((0, top, image.width, bottom))
        values = _eight_bits(band) if image.mode.startswith("I") else np.asarray(band.convert(mode))
        pixels[top:bottom] = values.reshape(pixels[top:bottom].shape)
    return upright(pixels, image)


def upright(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    """Turn the pixels of a decoded image upright, as its EXIF orientation says."""
    mirrored, turns = UPRIGHT.get(image.getexif().get(ORIENTATION, 1), UPRIGHT[1])
    return np.ascontiguousarray(np.rot90(pixels[:, ::-1] if mirrored else pixels, turns))


def _webp_pixels(image: Image.Image, alpha: bool) -> np.ndarray:
    """Decode a WebP file by OpenCV, as Pillow takes four times the memory."""
    cv2 = quiet_opencv()
    content = np.frombuffer(bounded(image).content(), np.uint8)
    pixels = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape[:2] != (image.height, image.width):
        raise ValueError("image file is truncated or damaged")
    channels = pixels.shape[2]
    order = cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGRA2RGBA
    cv2.cvtColor(pixels, order, dst=pixels)
    return pixels if alpha or channels == 3 else np.ascontiguousarray(pixels[..., :3])


def _eight_bits(image: Image.Image) -> np.ndarray:
    levels = np.asarray(image).astype(np.int64)
    if levels.min() < 0 or levels.max() > 65535:
        raise ValueError("32-bit levels; save it with 8 or 16 bits per channel")
    return ((levels * 255 + 32767) // 65535).astype(np.uint8)


def _sixteen_bit_pixels(image: Image.Image) -> np.ndarray:
    """Return the upright H x W x (1 or 3) uint16 image."""
    orientation = image.getexif().get(ORIENTATION, 1)
    content = bounded(image).content()
    image.load()  # OpenCV decodes it again, but only Pillow reports missing parts
    pixels = decode_16_bits(image, content, orientation if orientation in UPRIGHT else 1)
    return np.ascontiguousarray(pixels[..., :3])


def _in_color(pixels: np.ndarray, color: Color) -> np.ndarray:
    channels = pixels.shape[2]
    if color == "rgb" and channels == 1:
        return np.repeat(pixels, 3, axis=2)
    if color == "gray" and channels == 3:
        cv2 = quiet_opencv()
        return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]
    return pixels
