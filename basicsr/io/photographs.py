"""Read and write photographs together with their metadata (EXIF, ICC profile, alpha).

`basicsr.io.images` reads pixels only; a photograph keeps its file format, bits per channel,
transparency and metadata as well, so that its restored version differs in the colours alone.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import TiffImageFile

from basicsr.io.images import GRAY_MODES, eight_bit_pixels, to_levels, upright
from basicsr.io.opening import bounded, opened, reason
from basicsr.io.photo_formats import Encoder, encoder
from basicsr.io.sixteen_bits import (
    ORIENTATION,
    UPRIGHT,
    decode_16_bits,
    has_16_bits,
    jpeg2000_bits,
)
from basicsr.io.tiff_files import further_pages
from basicsr.utils.errors import DataError


@dataclass(frozen=True)
class Photograph:
    """Photograph: its pixels, and how a file like the one it was read from is written.

    Args:
        path: the file.
        colours: H x W x 3 uint8 or uint16 RGB, upright; three equal channels for gray files.
        gray: whether the file has a single channel of colour.
        alpha: H x W transparency, upright, or None.
        orientation: EXIF orientation of the file.
        profile: ICC profile of the colours, or None if there is none or the file is gray.
        encoder: how such files are written.
        left_out: in words, what a written file lacks.
    """

    path: Path
    colours: np.ndarray
    gray: bool
    alpha: np.ndarray | None
    orientation: int
    profile: bytes | None
    encoder: Encoder
    left_out: list[str] = field(default_factory=list)

    def encoded(self, restored: np.ndarray) -> bytes:
        """Return the file's content with `restored` in place of the colours.

        `restored` is upright, H x W x 3 in [0, 1]; H x W x 1 does for gray files, which get the
        mean of three channels. The content is decoded once, to see that it can be; if it cannot
        because of its metadata, these are left out.

        Raises DataError if the file cannot be written.
        """
        if self.gray:
            restored = restored.mean(axis=2, keepdims=True)
        image = to_levels(restored, self.colours.dtype)
        if self.alpha is not None:
            image = np.dstack([image, self.alpha])
        mirrored, turns = UPRIGHT[self.orientation]
        stored = np.rot90(image, -turns)
        stored = np.ascontiguousarray(stored[:, ::-1] if mirrored else stored)
        try:
            content = self.encoder.write(stored)
            if self._fault(content, image, self.orientation) is None:
                return content
        except Exception:  # Pillow raises anything for metadata that it cannot write
            pass
        return self._without_metadata(np.ascontiguousarray(image))

    def _without_metadata(self, image: np.ndarray) -> bytes:
        try:
            content = self.encoder.write_bare(image)
        except Exception as error:
            raise DataError(f"{self.path}: cannot be written ({reason(error)})") from error
        if fault := self._fault(content, image, 1):
            raise DataError(f"{self.path}: cannot be written so that it can be read ({fault})")
        self.left_out.append("all metadata, as they cannot be written")
        return content

    def _fault(self, content: bytes, expected: np.ndarray, orientation: int) -> str | None:
        """Decode a file's content; return how it differs from the upright image, or None."""
        try:
            with opened(self.path, content) as image:
                found = image.getexif().get(ORIENTATION, 1)
                pixels = _pixels(image, content, found if found in UPRIGHT else 1)
        except Exception as error:
            return reason(error)
        if found != orientation and orientation != 1:
            return "its orientation is lost"
        if pixels.shape != expected.shape or pixels.dtype != expected.dtype:
            return "its size or its channels change"
        if self.encoder.lossless and not np.array_equal(pixels, expected):
            return "its pixels change"
        return None


def read_photograph(path: str | Path) -> Photograph:
    """Read a photograph with 8 or 16 bits per channel.

    CMYK is converted to sRGB by its profile, a palette to RGB. Raises DataError for files that are
    missing, truncated or not images, hold several images or 32-bit levels, or are above the limits
    of `basicsr.io.opening`.
    """
    with opened(path) as image:
        try:
            return _read(image, Path(path))
        except MemoryError:  # no fault of the file
            raise
        except Exception as error:  # decoders raise anything for broken files
            raise DataError(f"{path}: cannot be restored ({reason(error)})") from error


def _read(image: Image.Image, path: Path) -> Photograph:
    content = bounded(image).content()
    _require_supported(image, content)
    orientation = image.getexif().get(ORIENTATION, 1)
    orientation = orientation if orientation in UPRIGHT else 1
    gray = image.mode in GRAY_MODES
    profile = None if gray or image.mode == "CMYK" else image.info.get("icc_profile")
    encode = encoder(image, content, gray)
    pixels = _pixels(image, content, orientation)
    alpha = pixels[..., -1] if pixels.shape[2] % 2 == 0 else None
    colours = np.repeat(pixels[..., :1], 3, axis=2) if gray else pixels[..., :3]
    left_out = list(encode.left_out)
    if isinstance(image, TiffImageFile) and further_pages(image) == "smaller":
        left_out.append("smaller versions of the image")
    return Photograph(path, colours, gray, alpha, orientation, profile, encode, left_out)


def _require_supported(image: Image.Image, content: bytes) -> None:
    if isinstance(image, TiffImageFile) and further_pages(image) == "others":
        raise ValueError("it holds several images; save the one to restore as its own file")
    deep = has_16_bits(image, content)
    if image.mode == "F" or (image.mode.startswith("I") and not deep):
        raise ValueError("its levels are neither of 8 nor of 16 bits")
    if image.format == "JPEG2000" and jpeg2000_bits(content) not in (*range(1, 9), 16):
        raise ValueError(f"its levels have {jpeg2000_bits(content)} bits, not 8 or 16")


def _pixels(image: Image.Image, content: bytes, orientation: int) -> np.ndarray:
    """Return the upright H x W x C image, alpha included."""
    if has_16_bits(image, content):
        image.load()  # OpenCV decodes it again, but only Pillow reports missing parts
        return decode_16_bits(image, content, orientation)
    if image.mode == "CMYK" and (profile := image.info.get("icc_profile")):
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
        return upright(np.asarray(converted), image)
    return eight_bit_pixels(image, alpha=True)
