"""Choice of the encoder for a restored video: that of the original, or the nearest one."""

from __future__ import annotations

import functools
import os
import re
import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from basicsr.io.video.frames import BT709, bits_of, has_alpha, side_data
from basicsr.utils.errors import DataError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.codeccontext import VideoCodecContext
    from av.video.format import VideoFormat
    from av.video.stream import VideoStream

CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
}
"""Formats of ffmpeg by suffix."""
_ENCODERS = {  # by container, from the most widely played one
    "mp4": ("libx264", "libx265", "libsvtav1", "libvpx-vp9"),
    "mov": ("libx264", "libx265", "prores_ks"),
    "matroska": ("libx264", "libx265", "libsvtav1", "libvpx-vp9", "prores_ks", "ffv1"),
    "webm": ("libvpx-vp9", "libsvtav1"),
}
_OWN = {  # by the codec of the original, where it differs from `_ENCODERS` in order
    "hevc": "libx265",
    "av1": "libsvtav1",
    "vp9": "libvpx-vp9",
    "vp8": "libvpx-vp9",
    **dict.fromkeys(("prores", "dnxhd", "cfhd", "qtrle", "png", "v210", "rawvideo"), "prores_ks"),
    **dict.fromkeys(("ffv1", "huffyuv", "ffvhuff", "utvideo", "magicyuv"), "ffv1"),
}
_VISUALLY_LOSSLESS = {
    "libx264": {"crf": "16"},
    "libx265": {"crf": "16", "x265-params": "log-level=none"},
    "libsvtav1": {"crf": "16", "preset": "6"},
    "libvpx-vp9": {"crf": "16", "b": "0", "row-mt": "1", "cpu-used": "2"},
    "prores_ks": {"vendor": "apl0"},
    "ffv1": {"level": "3"},
}
_EVEN_SIDES = frozenset({"libx264", "libx265", "libsvtav1", "prores_ks"})
_KEEP_ALPHA = frozenset({"prores_ks", "ffv1"})
_PLANAR = re.compile(r"yuva?4\d\dp(\d+le)?$")
_STATIC_HDR = frozenset({"MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"})
_DYNAMIC_HDR = frozenset({"DYNAMIC_HDR_PLUS", "DYNAMIC_HDR_VIVID", "DOVI_METADATA"})
_LIMITED_RANGE = 1  # ffmpeg's code; 2 is the full range


class Coding(NamedTuple):
    """How a video is encoded.

    Args:
        encoder: name of ffmpeg's encoder.
        pix_fmt: format of the encoded frames.
        height: of the encoded frames; odd sides may grow by a pixel.
        width: of the encoded frames.
        rate: average number of frames per second.
        time_base: unit of the frames' times, in seconds.
        aspect: width of a pixel relative to its height.
        colour: codes of primaries, transfer, matrix and range.
        options: settings of the encoder.
        lost: in words, what is not kept.
    """

    encoder: str
    pix_fmt: str
    height: int
    width: int
    rate: Fraction
    time_base: Fraction
    aspect: Fraction | None
    colour: tuple[int, int, int, int]
    options: dict[str, str]
    lost: list[str]

    def prepare(self, context: VideoCodecContext, container: str) -> None:
        """Set up the context of the encoder."""
        from av.codec.context import Flags

        context.width, context.height = self.width, self.height
        context.pix_fmt, context.time_base = self.pix_fmt, self.time_base
        context.framerate = self.rate
        if self.aspect:
            context.sample_aspect_ratio = self.aspect
        context.color_primaries, context.color_trc = self.colour[:2]
        context.colorspace, context.color_range = self.colour[2:]
        context.flags |= Flags.frame_duration
        context.options.update(self.options)
        if self.encoder == "libx265" and container in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # the tag that Apple's players need


def choose_coding(
    stream: VideoStream, first: VideoFrame, height: int, width: int, container: str, rate: Any
) -> Coding:
    """Return the coding that keeps most of a video: bits, then colour resolution, then the codec.

    Args:
        stream: track of the original.
        first: its first frame.
        height: of the new frames, in pixels.
        width: of the new frames, in pixels.
        container: ffmpeg's name of the new file's format.
        rate: average number of frames per second, as a fraction.

    Raises DataError if this build of PyAV has no encoder for the container.
    """
    os.environ.setdefault("SVT_LOG", "1")  # errors only, or SVT-AV1 prints its settings
    codec = stream.codec_context.codec.canonical_name
    encoders = list(_ENCODERS[container])
    if bits_of(first) > 8 and "libx264" in encoders:  # few players show H.264 of 10 bits
        encoders.remove("libx264")
        encoders.append("libx264")
    own = "libx264" if codec == "h264" else _OWN.get(codec)
    if own in encoders:
        encoders.remove(own)
        encoders.insert(0, own)
    found = []
    for place, encoder in enumerate(encoders):
        for pix_fmt in _formats(encoder):
            loss = _loss(first, pix_fmt)
            found.append(((*loss[:3], place, *loss[3:]), encoder, pix_fmt))
    for _, encoder, pix_fmt in sorted(found):
        coding = _coding(stream, first, (height, width), encoder, pix_fmt, rate)
        if _opens(coding, container):
            return coding
    raise DataError(
        f"no encoder of this PyAV can write {width} x {height} pixels as {container}; install the "
        "package av from PyPI"
    )


def _formats(encoder: str) -> Iterator[str]:
    import av

    try:
        formats = av.codec.Codec(encoder, "w").video_formats or []
    except (av.FFmpegError, ValueError):  # not in this build
        return
    for each in formats:
        if _PLANAR.match(each.name) and (encoder in _KEEP_ALPHA or "a" not in each.name):
            yield each.name


def _sampling(pixel_format: VideoFormat) -> tuple[int, int]:
    """Return the number of luma samples per chroma sample, along rows and columns."""
    components = pixel_format.components
    if pixel_format.is_rgb or pixel_format.has_palette:
        return 1, 1
    if len(components) < 3:  # gray
        return 2, 2
    ratios = (pixel_format.width / components[1].width, pixel_format.height / components[1].height)
    return round(ratios[0]), round(ratios[1])


def _loss(first: VideoFrame, pix_fmt: str) -> tuple[int, int, int, int, int, int]:
    """Return what a format lacks, then what it has in excess.

    These are lost bits of the upper ten, colour resolution, transparency and lower bits; then
    superfluous bits and superfluous colour resolution.
    """
    import av

    old = av.VideoFormat(first.format.name, 64, 64)
    new = av.VideoFormat(pix_fmt, 64, 64)
    bits, new_bits = bits_of(first), new.components[0].bits
    (old_x, old_y), (new_x, new_y) = _sampling(old), _sampling(new)
    alpha = has_alpha(first) - ("a" in pix_fmt)
    return (
        max(min(bits, 10) - new_bits, 0),
        max(new_x - old_x, 0) + max(new_y - old_y, 0),
        max(alpha, 0),
        max(bits - max(new_bits, 10), 0),
        max(new_bits - bits, 0),
        max(old_x - new_x, 0) + max(old_y - new_y, 0) + max(-alpha, 0),
    )


def _coding(
    stream: VideoStream,
    first: VideoFrame,
    size: tuple[int, int],
    encoder: str,
    pix_fmt: str,
    rate: Any,
) -> Coding:
    import av

    new = av.VideoFormat(pix_fmt, 64, 64)
    steps = _sampling(new)[::-1] if encoder in _EVEN_SIDES else (1, 1)
    height, width = (-(-side // step) * step for side, step in zip(size, steps, strict=True))
    lost = []
    codec = stream.codec_context.codec.canonical_name
    new_codec = av.codec.Codec(encoder, "w").canonical_name
    if codec != new_codec:
        lost.append(f"the codec {codec} ({new_codec} is written)")
    loss = _loss(first, pix_fmt)
    if loss[0] or loss[3]:
        lost.append(f"{bits_of(first)} bits per channel ({new.components[0].bits} are written)")
    if loss[1]:
        lost.append(f"the colour resolution of {first.format.name} ({pix_fmt} is written)")
    # WebM stores transparency in a second stream, which is not decoded
    hides_alpha = ("alpha_mode", "1") in [(k.lower(), v) for k, v in stream.metadata.items()]
    if hides_alpha or (has_alpha(first) and "a" not in pix_fmt):
        lost.append("transparency")
    if (height, width) != size:
        lost.append(f"the odd size {size[1]} x {size[0]} ({width} x {height} is written)")
    if first.interlaced_frame:
        lost.append("interlacing (the two fields of a frame are restored as one image)")
    options = dict(_VISUALLY_LOSSLESS[encoder])
    if encoder == "prores_ks":
        options["profile"] = "4444" if pix_fmt.startswith(("yuv444", "yuva444")) else "hq"
    if encoder == "libx264" and _has_avx512():
        # With AVX-512, the rate control of PyAV 18.1's libx264 differs from run to run.
        options["x264-params"] = "asm=AVX2"
    return Coding(
        encoder,
        pix_fmt,
        height,
        width,
        Fraction(rate),
        stream.time_base or Fraction(1, 90000),
        stream.sample_aspect_ratio,
        _colour(stream.codec_context, first.format.is_rgb),
        options,
        lost + _add_hdr(options, encoder, first),
    )


@functools.cache
def _has_avx512() -> bool:
    """Return whether Linux says so of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and " avx512f " in cpuinfo.read_text()


def _colour(context: VideoCodecContext, is_rgb: bool) -> tuple[int, int, int, int]:
    """Return the codes of primaries, transfer, matrix and range; those of RGB become YUV's."""
    described = (context.color_primaries, context.color_trc)
    if is_rgb:
        return *described, BT709, _LIMITED_RANGE
    return *described, context.colorspace, context.color_range


def _add_hdr(options: dict[str, str], encoder: str, first: VideoFrame) -> list[str]:
    """Add the HDR10 metadata of a frame to the settings of an encoder; return what is lost.

    Their layout is that of ffmpeg's AVMasteringDisplayMetadata and AVContentLightMetadata.
    """
    found = side_data(first)
    lost = ["dynamic HDR metadata"] if _DYNAMIC_HDR & found.keys() else []
    if not _STATIC_HDR & found.keys():
        return lost
    if encoder not in ("libx265", "libsvtav1"):
        return [*lost, "HDR10 metadata"]
    settings = []
    if display := found.get("MASTERING_DISPLAY_METADATA"):
        numbers = struct.unpack("<22i", display[:88])
        values = [top / bottom if bottom else 0.0 for top, bottom in _pairs(numbers[:20])]
        if encoder == "libx265":  # whole numbers of 0.00002, and of 0.0001 candela per square metre
            shown = [str(round(each * 50000)) for each in values[:8]]
            shown += [str(round(each * 10000)) for each in values[8:]]
        else:
            shown = [f"{each:.5f}" for each in values]
        red_x, red_y, green_x, green_y, blue_x, blue_y, white_x, white_y, least, most = shown
        name = "master-display" if encoder == "libx265" else "mastering-display"
        settings.append(
            f"{name}=G({green_x},{green_y})B({blue_x},{blue_y})R({red_x},{red_y})"
            f"WP({white_x},{white_y})L({most},{least})"
        )
    if light := found.get("CONTENT_LIGHT_LEVEL"):
        most, average = struct.unpack("<2I", light[:8])
        name = "max-cll" if encoder == "libx265" else "content-light"
        settings.append(f"{name}={most},{average}")
    name = "x265-params" if encoder == "libx265" else "svtav1-params"
    options[name] = ":".join([options[name], *settings] if name in options else settings)
    return lost


def _pairs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    return zip(numbers[::2], numbers[1::2], strict=True)


def _opens(coding: Coding, container: str) -> bool:
    """Return whether the encoder takes the settings; some have a smallest size."""
    import av

    context = av.CodecContext.create(coding.encoder, "w")
    assert isinstance(context, av.video.codeccontext.VideoCodecContext)
    coding.prepare(context, container)
    try:
        context.open()
    except (av.FFmpegError, ValueError):
        return False
    return True
