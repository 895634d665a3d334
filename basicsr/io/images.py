"""Read and write image files as H x W x C arrays: one gray channel or three of RGB."""

from __future__ import annotations

import io
import os
import re
import stat
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from basicsr.io.sixteen_bits import (
    HEADER,
    ORIENTATION,
    UPRIGHT,
    decode_16_bits,
    encode_16_bits,
    has_16_bits,
)
from basicsr.io.stored_files import in_lmdb, is_lmdb, lmdb_keys, read_file
from basicsr.utils.errors import DataError

Color = Literal["gray", "rgb", "as_stored"]
BitDepth = Literal[8, 16, "as_stored"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
GRAY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"})
"""Pillow's modes with a single channel of colour."""
# recognised by content; other readers of Pillow are left out, as some start other programs
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "GIF")
_TURNED = frozenset({5, 6, 7, 8})  # EXIF orientations that swap width and height
_PNG_TYPES = (np.uint8, np.uint16)


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts 'image-9' before 'image-10'."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]


def list_images(folder: str | Path, suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """List the files below `folder` with such suffixes, in natural order.

    Subfolders are included; hidden files and folders and links to folders are not. Raises DataError
    if the folder is missing, cannot be listed or holds no image, or if a name is not text.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; check the path, or put the data set there")
    found = []
    for parent, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            os.path.join(parent, name)
            for name in files
            if os.path.splitext(name)[1].lower() in suffixes and not name.startswith(".")
        ]
    if not found:
        raise DataError(f"{folder}: no images in this folder ({', '.join(sorted(suffixes))})")
    for name in found:
        if not _is_text(name):
            raise DataError(f"{name!a}: this file name is not UTF-8 text; rename the file")
    return [Path(name) for name in sorted(found, key=natural_key)]


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be listed ({error.strerror})") from error


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def images_by_stem(folder: Path) -> dict[str, Path]:
    """Map the paths relative to `folder`, without suffix, to the files that `list_images` finds.

    Of an LMDB, it maps the keys. Raises DataError for files that differ in their suffix only.
    """
    if is_lmdb(folder):
        return {key: folder / key for key in sorted(lmdb_keys(folder), key=natural_key)}
    files: dict[str, Path] = {}
    for path in list_images(folder):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in files:
            raise DataError(f"{files[stem]} and {path} differ in their suffix only; keep one")
        files[stem] = path
    return files


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
            levels, or is larger than Pillow's limit against decompression bombs.
    """
    with opened(path) as image:
        try:
            if bit_depth != 8 and _has_16_bits(image, path):
                return _in_color(_sixteen_bit_pixels(image, path), color)
            pixels = _in_color(_eight_bit_pixels(ImageOps.exif_transpose(image)), color)
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

    Raises DataError as `read_image` does, as far as the header shows a fault.
    """
    with opened(path) as image:
        deep = bit_depth == 16 or (bit_depth == "as_stored" and _has_16_bits(image, path))
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
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if image.dtype == np.uint16:
            aside.write_bytes(encode_16_bits(image, ".png"))
        else:
            pixels = image[..., 0] if channels == 1 else image
            Image.fromarray(pixels).save(aside, format="PNG", compress_level=3)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def to_levels(image: np.ndarray, dtype: npt.DTypeLike, mode: str = "round") -> np.ndarray:
    """Convert an image in [0, 1] to uint8 or uint16; `mode` is "round" or "truncate"."""
    scaled = image * np.float32(np.iinfo(np.dtype(dtype)).max)
    return (scaled if mode == "truncate" else scaled.round()).astype(dtype)


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """Open a file and read its header, not its pixels. Raises DataError as `read_image` does."""
    try:
        if in_lmdb(path):
            with _open(io.BytesIO(read_file(path))) as image:
                yield image
            return
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would block
            raise DataError(f"{path}: not a file; remove it, or give it a name without this suffix")
        if status.st_size == 0:
            raise DataError(f"{path}: not a readable image (the file is empty)")
        with _open(path) as image:
            yield image
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{path}: too large to be decoded ({reason(error)}); cut it into smaller images, or "
            "remove it if it should not be that large"
        ) from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{path}: not a readable image (not {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]})"
        ) from error
    except Exception as error:  # Pillow's readers raise anything for broken headers
        raise DataError(f"{path}: not a readable image ({reason(error)})") from error


def _open(path: str | Path | io.BytesIO) -> Image.Image:
    """Open a file. Raises above Pillow's limit; Pillow itself only warns up to twice that limit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(path, formats=_FORMATS)
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        image.close()
        raise Image.DecompressionBombError(
            f"{image.width} x {image.height} pixels, the limit is {limit} in all"
        )
    return image


def _has_16_bits(image: Image.Image, path: str | Path) -> bool:
    return has_16_bits(image, read_file(path, HEADER))


def _sixteen_bit_pixels(image: Image.Image, path: str | Path) -> np.ndarray:
    """Return the upright H x W x (1 or 3) uint16 image."""
    orientation = image.getexif().get(ORIENTATION, 1)
    image.load()  # OpenCV decodes it again, but only Pillow reports missing parts
    pixels = decode_16_bits(image, read_file(path), orientation if orientation in UPRIGHT else 1)
    return np.ascontiguousarray(pixels[..., :3])


def _eight_bit_pixels(image: Image.Image) -> np.ndarray:
    """Return the H x W x (1 or 3) uint8 image."""
    image.info.pop("transparency", None)  # is dropped; Pillow would warn that it is
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError("32-bit levels; save it with 8 or 16 bits per channel")
        return ((levels * 255 + 32767) // 65535).astype(np.uint8)[..., None]
    if image.mode == "F":
        raise ValueError("floating-point levels; save it with 8 or 16 bits per channel")
    if image.mode in GRAY_MODES:
        return np.array(image.convert("L"))[..., None]
    return np.array(image.convert("RGB"))


def _in_color(pixels: np.ndarray, color: Color) -> np.ndarray:
    channels = pixels.shape[2]
    if color == "rgb" and channels == 1:
        return np.repeat(pixels, 3, axis=2)
    if color == "gray" and channels == 3:
        import cv2  # here, so that importing the library does not load OpenCV

        return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]
    return pixels


def reason(error: Exception) -> str:
    """Return the message of a library's error in one line."""
    message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(message.split()) or type(error).__name__
