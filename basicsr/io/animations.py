"""Read and write animated GIF, PNG, WebP and AVIF files frame by frame."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from basicsr.io.images import to_levels
from basicsr.io.opening import bounded, max_megapixels, opened, reason, require_pixels
from basicsr.io.photo_formats import QUALITY, pillow_metadata, png_metadata, png_with
from basicsr.utils.errors import DataError

_FORMATS = frozenset({"GIF", "PNG", "WEBP", "AVIF"})
_MOST_FRAMES = 100_000
_MOST_BYTES, _MOST_READS = 2**30, 2**22
"""Limits of reading a file, several times as frames are counted before they are restored."""
_GIF_COLOURS = 255  # and a transparent one


class Frame(NamedTuple):
    """H x W x 3 uint8 RGB, and H x W transparency or None."""

    colours: np.ndarray
    alpha: np.ndarray | None


@dataclass(frozen=True)
class Animation:
    """Animation, or a GIF file of a single frame.

    Args:
        path: the file.
        height: of every frame, in pixels.
        width: of every frame, in pixels.
        durations: milliseconds that each frame is shown.
        save: settings with which Pillow writes such a file.
        png_chunks: metadata of a PNG file.
        left_out: in words, what a written file lacks.
    """

    path: Path
    height: int
    width: int
    durations: list[float]
    save: dict[str, Any]
    png_chunks: bytes = b""
    left_out: list[str] = field(default_factory=list)

    def frames(self) -> Iterator[Frame]:
        """Decode one frame after the other. Raises DataError if one is damaged."""
        with opened(self.path) as image:
            _allow_frames(image)
            for number in range(len(self.durations)):
                try:
                    image.seek(number)
                    has_alpha = image.has_transparency_data
                    pixels = np.asarray(image.convert("RGBA" if has_alpha else "RGB"))
                except Exception as error:  # Pillow's decoders raise anything for broken files
                    raise DataError(
                        f"{self.path}: frame {number + 1} of {len(self.durations)} cannot be "
                        f"decoded ({reason(error)})"
                    ) from error
                is_opaque = not has_alpha or bool((pixels[..., 3] == 255).all())
                yield Frame(pixels[..., :3], None if is_opaque else pixels[..., 3])

    def encoded(self, restored: Iterator[tuple[np.ndarray, np.ndarray | None]]) -> bytes:
        """Return the content of a file of restored frames, H x W x 3 in [0, 1], and their alpha.

        The content is decoded once, to see that it can be. Raises DataError if it cannot.
        """
        pictures = (self._picture(to_levels(image, np.uint8), alpha) for image, alpha in restored)
        first = next(pictures)
        file = io.BytesIO()
        try:
            if len(self.durations) == 1:
                first.save(file, **self.save)
            else:
                # Pillow iterates twice over the frames of PNG
                others = list(pictures) if self.save["format"] == "PNG" else pictures
                first.save(file, save_all=True, append_images=others, **self.save)
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"{self.path}: cannot be written ({reason(error)})") from error
        content = file.getvalue()
        if self.save["format"] == "PNG":
            content = png_with(content, self.png_chunks)
        self._require_readable(content)
        return content

    def _picture(self, image: np.ndarray, alpha: np.ndarray | None) -> Image.Image:
        if self.save["format"] == "GIF":
            return _with_palette(image, alpha)
        return Image.fromarray(image if alpha is None else np.dstack([image, alpha]))

    def _require_readable(self, content: bytes) -> None:
        try:
            with opened(self.path, content) as image:
                _allow_frames(image)
                same = image.size == (self.width, self.height)
                for number in range(getattr(image, "n_frames", 1)):
                    image.seek(number)
                    image.load()
        except Exception as error:
            same, fault = False, reason(error)
        else:
            fault = "its size changes"
        if not same:
            raise DataError(f"{self.path}: cannot be written so that it can be read ({fault})")


def is_animation(path: str | Path) -> bool:
    """Return whether a file is read by `read_animation`: a GIF file, or one of several frames.

    Raises DataError as `opened` does.
    """
    with opened(path) as image:
        several = image.format in _FORMATS and getattr(image, "is_animated", False)
        return image.format == "GIF" or bool(several)


def read_animation(path: str | Path) -> Animation:
    """Read what an animation says about its frames; `frames` decodes them.

    Raises DataError if a frame is damaged, or all frames together are above the limit of
    `basicsr.io.opening`.
    """
    with opened(path) as image:
        try:
            return _read(image, Path(path))
        except Exception as error:  # decoders raise anything for broken files
            raise DataError(f"{path}: cannot be restored ({reason(error)})") from error


def _read(image: Image.Image, path: Path) -> Animation:
    _allow_frames(image)
    frames = int(getattr(image, "n_frames", 1))
    width, height = image.size
    require_pixels(width * height * frames, f"{frames} frames of {width} x {height} pixels")
    if frames > min(_MOST_FRAMES, 1e6 * max_megapixels()):
        raise ValueError(f"it has {frames} frames; cut it into shorter ones")
    save, chunks, left_out = _settings(image, width * height * frames)
    durations: list[float] = []
    has_alpha = False
    for number in range(frames):
        image.seek(number)
        image.load()
        has_alpha |= image.has_transparency_data
        durations.append(image.info.get("duration", 0))
    if frames > 1:
        shown = durations[1:] if save.get("default_image") else durations
        save |= {"duration": shown}
        if "loop" in image.info:
            save["loop"] = image.info["loop"]
    if has_alpha and image.format == "GIF":
        save["disposal"] = 2  # or the frame before would show through
    return Animation(path, height, width, durations, save, chunks, left_out)


def _allow_frames(image: Image.Image) -> None:
    file = bounded(image)
    file.allowed, file.reads = _MOST_BYTES, _MOST_READS


def _settings(image: Image.Image, pixels: int) -> tuple[dict[str, Any], bytes, list[str]]:
    """Return the settings of Pillow's `save`, the chunks of a PNG file, and what is left out.

    `pixels` are those of all frames together.
    """
    save: dict[str, Any] = {"format": image.format}
    if image.format == "GIF":
        if "comment" in image.info:
            save["comment"] = image.info["comment"]
        return save, b"", []
    bounded(image).allow_pixels(pixels)
    content = bounded(image).content()
    _allow_frames(image)
    if image.format == "PNG":
        chunks, left_out = png_metadata(content, gray=False)
        if content[24] == 16:
            left_out += ("16 bits per channel (8 are written)",)
        save |= {"default_image": bool(image.info.get("default_image")), "disposal": 0, "blend": 0}
        return save, chunks, list(left_out)
    metadata, left_out = pillow_metadata(image, gray=False)
    metadata.pop("exif", None)  # animations are shown as they are stored
    save |= {"quality": QUALITY, **metadata}
    if image.format == "WEBP":
        save |= {"lossless": b"VP8L" in content and b"VP8 " not in content, "exact": True}
    if "exif" in image.info:
        left_out += ("EXIF",)
    return save, b"", list(left_out)


def _with_palette(image: np.ndarray, alpha: np.ndarray | None) -> Image.Image:
    """Reduce a frame to the colours that GIF allows; nearby colours are mixed by their pattern."""
    picture = Image.fromarray(image)
    palette = picture.quantize(_GIF_COLOURS, method=Image.Quantize.MEDIANCUT)
    reduced = picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    if alpha is not None:
        reduced.paste(_GIF_COLOURS, mask=Image.fromarray((alpha < 128).astype(np.uint8) * 255))
        reduced.info["transparency"] = _GIF_COLOURS
    return reduced
