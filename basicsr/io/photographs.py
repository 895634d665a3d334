"""Read and write photographs together with their metadata (EXIF, ICC profile, alpha).

`basicsr.io.images` reads pixels only; a photograph keeps its file format, bits per channel,
transparency and metadata as well, so that its restored version differs in the colours alone.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from basicsr.io.images import GRAY_MODES, opened, reason, to_levels
from basicsr.io.photo_formats import encoder
from basicsr.io.sixteen_bits import ORIENTATION, UPRIGHT, decode_16_bits, has_16_bits
from basicsr.utils.errors import DataError


@dataclass(frozen=True)
class Photograph:
    """Photograph: its pixels, and the function that writes a file like the one it was read from.

    Args:
        colours: H x W x 3 uint8 or uint16 RGB, upright; three equal channels for gray files.
        gray: whether the file has a single channel of colour.
        alpha: H x W transparency, upright, or None.
        orientation: EXIF orientation of the file.
        profile: ICC profile of the colours, or None if there is none or the file is gray.
        encode: function from the image as stored (orientation of the file, 1 or 3 channels, plus
            one with alpha) to the content of the file.
    """

    colours: np.ndarray
    gray: bool
    alpha: np.ndarray | None
    orientation: int
    profile: bytes | None
    encode: Callable[[np.ndarray], bytes]

    def encoded(self, restored: np.ndarray) -> bytes:
        """Return the file's content with `restored` in place of the colours.

        `restored` is upright, H x W x 3 in [0, 1]; H x W x 1 does for gray files, which get the
        mean of three channels.
        """
        if self.gray:
            restored = restored.mean(axis=2, keepdims=True)
        image = to_levels(restored, self.colours.dtype)
        if self.alpha is not None:
            image = np.dstack([image, self.alpha])
        mirrored, turns = UPRIGHT[self.orientation]
        image = np.rot90(image, -turns)
        return self.encode(np.ascontiguousarray(image[:, ::-1] if mirrored else image))


def read_photograph(path: str | Path) -> Photograph:
    """Read a photograph with 8 or 16 bits per channel.

    CMYK is converted to sRGB by its profile, a palette to RGB. Raises DataError for files that are
    missing, truncated or not images, hold several images or 32-bit levels, or are larger than
    Pillow's limit against decompression bombs.
    """
    with opened(path) as image:
        try:
            return _read(image, Path(path).read_bytes())
        except Exception as error:  # decoders raise anything for broken files
            raise DataError(f"{path}: cannot be restored ({reason(error)})") from error


def _read(image: Image.Image, content: bytes) -> Photograph:
    if not isinstance(image, JpegImageFile) and getattr(image, "n_frames", 1) > 1:
        raise ValueError("it holds several images; save the one to restore as its own file")
    orientation = image.getexif().get(ORIENTATION, 1)
    orientation = orientation if orientation in UPRIGHT else 1
    encode = encoder(image, content)
    deep = has_16_bits(image, content)
    image.load()  # where OpenCV decodes it again too: only Pillow reports missing parts
    gray = image.mode in GRAY_MODES
    pixels = decode_16_bits(image, content, orientation) if deep else _pixels(image, gray)
    alpha = pixels[..., -1] if pixels.shape[2] % 2 == 0 else None
    colours = np.repeat(pixels[..., :1], 3, axis=2) if gray else pixels[..., :3]
    profile = None if gray or image.mode == "CMYK" else image.info.get("icc_profile")
    return Photograph(colours, gray, alpha, orientation, profile, encode)


def _pixels(image: Image.Image, gray: bool) -> np.ndarray:
    """Return the upright H x W x C uint8 image, alpha included."""
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
