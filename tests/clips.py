"""Small videos for tests."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

HEIGHT, WIDTH = 48, 64


def colours(count: int = 6, height: int = HEIGHT, width: int = WIDTH) -> list[np.ndarray]:
    """Return 8-bit frames of one colour each, which a codec changes little."""
    return [np.full((height, width, 3), (40 * i, 200 - 30 * i, 90), np.uint8) for i in range(count)]


def add_picture(container: Any, frames: Sequence[np.ndarray], **settings: Any) -> Any:
    """Add a video track to an opened container; `settings` as of `write_clip`."""
    rate = settings.get("rate", 25)
    stream = container.add_stream(settings.get("encoder", "libx264"), rate=rate)
    stream.width, stream.height = frames[0].shape[1], frames[0].shape[0]
    stream.pix_fmt = settings.get("pix_fmt", "yuv420p")
    stream.time_base = settings.get("time_base", Fraction(1, 90000))
    context = stream.codec_context
    context.time_base = stream.time_base
    context.options = settings.get("options", {"crf": "10"})
    for name, value in settings.get("context", {}).items():
        setattr(context, name, value)
    return stream


def encoded(
    stream: Any, frames: Sequence[np.ndarray], times: Sequence[Any], **settings: Any
) -> Any:
    """Yield the packets of RGB frames, shown at `times` in seconds."""
    context = stream.codec_context
    matrix, levels = context.colorspace, context.color_range
    for frame, time in zip(frames, times, strict=True):
        rgb = {1: "rgb24", 2: "rgb48le"}[frame.itemsize]
        picture = av.VideoFrame.from_ndarray(frame, format=rgb)
        picture.colorspace = matrix
        picture = picture.reformat(
            format=stream.pix_fmt, dst_colorspace=matrix, dst_color_range=levels or 1
        )
        picture.pts = round(Fraction(time) / stream.time_base)
        picture.time_base = stream.time_base
        yield from stream.encode(picture)
    yield from stream.encode(None)


def write_clip(
    path: Path | str,
    frames: Sequence[np.ndarray],
    times: Sequence[Any] | None = None,
    **settings: Any,
) -> None:
    """Write a video of one track.

    Args:
        path: file; its suffix gives the format.
        frames: H x W x 3 RGB of 8 or 16 bits.
        times: seconds at which they are shown; by default at a constant rate.
        settings: encoder, pix_fmt, rate, time_base, options of the encoder, attributes of its
            context; and format, the container.
    """
    rate = settings.get("rate", 25)
    times = [Fraction(i) / rate for i in range(len(frames))] if times is None else times
    with (
        open(path, "wb") as file,
        av.open(file, "w", format=settings.get("format", _format_of(path))) as container,
    ):
        stream = add_picture(container, frames, **settings)
        stream.set_display_matrix(settings.get("matrix"))
        for packet in encoded(stream, frames, times):
            container.mux(packet)


def times_of(path: Path | str) -> list[float]:
    """Return the seconds at which the frames of a video are shown."""
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]


def _format_of(path: Path | str) -> str:
    return {".mkv": "matroska", ".mpg": "mpeg", ".mts": "mpegts", ".m4v": "mp4"}.get(
        Path(path).suffix, Path(path).suffix[1:]
    )
