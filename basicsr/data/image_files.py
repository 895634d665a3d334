"""Reading and writing image files: everything inside the library is H x W x 3 uint8 RGB."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from basicsr.utils.errors import DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
_EXIF_ORIENTATION = 0x0112
_TURNED = frozenset({5, 6, 7, 8})  # EXIF orientations that swap width and height


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key that puts 'rain-9' before 'rain-10'."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]


def list_images(folder: str | Path) -> list[Path]:
    """The image files below `folder`, subfolders included, hidden files left out, naturally sorted.

    Raises DataError where the folder is missing or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; check the path, or put the data set there")
    found = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not found:
        raise DataError(f"{folder}: no images in this folder ({', '.join(sorted(SUFFIXES))})")
    return sorted(found, key=lambda path: natural_key(path.relative_to(folder).as_posix()))


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

    Gray images get three equal channels, 16-bit gray is scaled to 8 bits, CMYK and palettes are
    converted; an alpha channel is dropped, as OpenCV does, so that stored colours stay as they are.
    Raises DataError for files that are missing, truncated, not images, or larger than Pillow's
    limit against decompression bombs.
    """
    with _opened(path) as image:
        try:
            return _to_rgb(ImageOps.exif_transpose(image))
        except Exception as error:  # Pillow's decoders raise anything for broken files
            raise DataError(f"{path}: cannot be decoded ({_reason(error)})") from error


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of the upright image, from the file's header alone."""
    with _opened(path) as image:
        width, height = image.size
        # the PNG plugin's own getexif decodes the whole image to look behind its pixels
        turned = Image.Image.getexif(image).get(_EXIF_ORIENTATION) in _TURNED
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


def _opened(path: str | Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return Image.open(path)
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such file") from error
        except Exception as error:
            raise DataError(f"{path}: not a readable image ({_reason(error)})") from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError("32-bit levels; save it with 8 or 16 bits per channel")
        gray = ((levels * 255 + 32767) // 65535).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("floating-point levels; save it with 8 or 16 bits per channel")
    return np.array(image.convert("RGB"))


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
