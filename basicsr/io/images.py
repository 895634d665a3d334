"""Reading and writing image files: everything inside the library is H x W x 3 uint8 RGB."""

from __future__ import annotations

import os
import re
import stat
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from basicsr.utils.errors import DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
# by content, whatever the suffix; Pillow knows more, some of which start other programs
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "GIF")
_EXIF_ORIENTATION = 0x0112
_TURNED = frozenset({5, 6, 7, 8})  # EXIF orientations that swap width and height


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key that puts 'rain-9' before 'rain-10'."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]


def list_images(folder: str | Path, suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """The files below `folder` with such suffixes, subfolders included, naturally sorted.

    Hidden files and folders are left out, and so is what lies behind links to folders. Raises
    DataError where the folder is missing, cannot be listed or holds no image, and for names that
    no log or result file could hold.
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
    """What `list_images` finds, by path relative to `folder` without suffix.

    Raises DataError for files that differ in their suffix only.
    """
    files: dict[str, Path] = {}
    for path in list_images(folder):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in files:
            raise DataError(f"{files[stem]} and {path} differ in their suffix only; keep one")
        files[stem] = path
    return files


def read_image(path: str | Path) -> np.ndarray:
    """Decode a file to H x W x 3 uint8 RGB, turned upright as its EXIF orientation says.

    Gray images get three equal channels, 16 bits are scaled to 8, CMYK and palettes are converted;
    an alpha channel is dropped, as OpenCV does, so that stored colours stay as they are. Of several
    frames the first is read. Raises DataError for files that are missing, truncated, not images, or
    larger than Pillow's limit against decompression bombs. Damage that leaves the structure whole
    is not seen in formats without checksums: of those known here, only PNG has them.
    """
    with opened(path) as image:
        try:
            return _to_rgb(ImageOps.exif_transpose(image))
        except Exception as error:  # Pillow's decoders raise anything for broken files
            raise DataError(f"{path}: cannot be decoded ({reason(error)})") from error


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of the upright image, from the file's header alone.

    Raises DataError as `read_image` does, as far as the header tells.
    """
    with opened(path) as image:
        width, height = image.size
        # the PNG plugin's own getexif decodes the whole image to look behind its pixels
        turned = Image.Image.getexif(image).get(_EXIF_ORIENTATION) in _TURNED
        turned &= image.format != "TIFF"  # whose size Pillow gives as it is to be seen
    return (width, height) if turned else (height, width)


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write H x W x 3 RGB or H x W gray uint8; parent folders are made, no half file is left."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        Image.fromarray(image).save(aside, format="PNG", compress_level=3)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def to_levels(image: np.ndarray, dtype: npt.DTypeLike, mode: str = "round") -> np.ndarray:
    """Convert an image in [0, 1] to uint8 or uint16; `mode` is "round" or "truncate"."""
    scaled = image * np.float32(np.iinfo(np.dtype(dtype)).max)
    return (scaled if mode == "truncate" else scaled.round()).astype(dtype)


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """The file's header, the pixels still to be read. Raises DataError as `read_image` does."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for ever
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


def _open(path: str | Path) -> Image.Image:
    """The file's header. Pillow itself only warns up to the double of its limit."""
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


def _to_rgb(image: Image.Image) -> np.ndarray:
    image.info.pop("transparency", None)  # is dropped; Pillow would warn that it is
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError("32-bit levels; save it with 8 or 16 bits per channel")
        gray = ((levels * 255 + 32767) // 65535).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("floating-point levels; save it with 8 or 16 bits per channel")
    return np.array(image.convert("RGB"))


def reason(error: Exception) -> str:
    """What a library says is wrong, in one line."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(said.split()) or type(error).__name__
