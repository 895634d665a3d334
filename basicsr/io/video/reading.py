"""Read videos with PyAV, which brings the libraries of ffmpeg."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from basicsr.io.opening import TooLarge, max_megapixels, require_pixels
from basicsr.io.video.frames import FrameColours, orientation_of
from basicsr.utils.errors import DataError

if TYPE_CHECKING:  # loading PyAV takes as long as all of this library
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".wmv"}
    | {".3gp", ".flv", ".ogv", ".mxf", ".vob"}
)
WRITTEN_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".mkv", ".webm"})  # others become .mp4

# Other formats of ffmpeg, as playlists, name further files, which would be opened.
_FORMATS = "mov,matroska,avi,mpeg,mpegvideo,mpegts,asf,flv,ogg,mxf"
_READ_PART = 0.9
"""Smallest share of a video that must be readable."""
_CUT_SECONDS = 0.5
"""Less than this may be missing at the end, as containers round durations."""


class VideoFacts(NamedTuple):
    """Facts in the header of a video, in pixels as stored; the number of frames is an estimate."""

    height: int
    width: int
    frames: int


def video_facts(path: Path) -> VideoFacts:
    """Read the header of a video. Raises DataError if the file is no video."""
    with opened_video(path) as video:
        return video.facts()


def read_frames(path: Path, start: int = 0) -> Iterator[np.ndarray]:
    """Yield the frames from number `start` on as H x W x 3 RGB, upright.

    They are uint8, or uint16 of videos with more bits.

    Raises DataError if there is none, or less than 90 % of the video can be read.
    """
    with opened_video(path) as video:
        colours, number = None, 0
        for packet in video.packets():
            for frame in video.decoded(packet):
                colours = colours or FrameColours(frame)
                if number >= start:
                    yield orientation_of(frame).upright(colours.pixels(colours.rgb(frame)))
                number += 1
        video.finish()


class Video:
    """Video that is read from its beginning to its end.

    Args:
        path: the file, for messages.
        container: the opened file.

    Attributes:
        stream: the video track.
        damaged: number of frames that could not be decoded.

    Raises DataError if there is no video track that can be decoded.
    """

    def __init__(self, path: Path, container: InputContainer) -> None:
        self.path, self.container = path, container
        tracks = [each for each in container.streams.video if not is_cover(each)]
        if not tracks:
            raise DataError(f"{path}: has no video track")
        self.stream: VideoStream = tracks[0]
        if self.stream.codec_context is None:
            raise DataError(f"{path}: its video codec is not known, or it is damaged")
        context = self.stream.codec_context
        try:
            require_pixels(context.width * context.height, f"{context.width} x {context.height}")
        except TooLarge as error:
            raise DataError(f"{path}: too large to be decoded ({error})") from error
        context.options = {"max_pixels": str(int(max_megapixels() * 1e6))}  # also of later frames
        self.frames, self.damaged, self._end = 0, 0, 0.0

    def facts(self) -> VideoFacts:
        context = self.stream.codec_context
        frames = self.stream.frames or round(self._announced() * float(self.rate()))
        return VideoFacts(context.height, context.width, max(frames, 0))

    def rate(self) -> Any:
        """Return the average number of frames per second, as a fraction."""
        return self.stream.average_rate or self.stream.guessed_rate or 25

    def packets(self) -> Iterator[Packet[Any]]:
        """Yield the packets of all tracks; they end where the file is damaged."""
        import av

        start = (self.container.start_time or 0) / av.time_base
        try:
            for packet in self.container.demux():
                if packet.pts is not None:
                    seconds = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    self._end = max(self._end, seconds - start)
                yield packet
        except av.FFmpegError:  # `finish` compares the end with the announced one
            return

    def decoded(self, packet: Packet[Any]) -> list[VideoFrame]:
        """Return the frames that a packet completes: none of other tracks and of damaged ones."""
        import av

        if packet.stream.index != self.stream.index:  # `stream_index` is not set at the end
            return []
        try:
            frames = self.stream.decode(packet)
        except MemoryError:
            raise
        except av.FFmpegError:
            self.damaged += 1
            return []
        self.damaged += sum(frame.is_corrupt for frame in frames)
        self.frames += len(frames)
        return frames

    def finish(self) -> list[str]:
        """Return in words what could not be read, after all packets.

        Raises DataError if that is more than a tenth of the video.
        """
        announced = self._announced()
        if self.frames == 0:
            raise DataError(f"{self.path}: damaged; no frame can be read")
        if self.damaged > (1 - _READ_PART) * (self.frames + self.damaged):
            raise DataError(
                f"{self.path}: damaged; {self.damaged} of {self.frames + self.damaged} frames "
                "cannot be decoded"
            )
        count = self.frames + self.damaged
        if self._counts_frames() and count < _READ_PART * self.stream.frames:
            raise DataError(
                f"{self.path}: damaged; {count} of {self.stream.frames} frames can be read"
            )
        if self._end + 1 / self.rate() < _READ_PART * announced:  # the last length may be unknown
            raise DataError(
                f"{self.path}: damaged; it ends after {self._end:.1f} of {announced:.1f} seconds"
            )
        lost = []
        if self.damaged:
            lost.append(f"{self.damaged} damaged frames")
        if self._end < announced - _CUT_SECONDS:
            lost.append(f"the end, as the file is cut off at {self._end:.1f} seconds")
        return lost

    def _counts_frames(self) -> bool:
        """Return whether the header counts the frames that are shown; MP4 counts others as well."""
        return self.container.format.name == "avi"

    def _announced(self) -> float:
        """Return the length in the header in seconds; 0 if it is not known."""
        import av

        if self.container.format.name == "mpegvideo":  # guessed from the size of the file
            return 0.0
        return (self.container.duration or 0) / av.time_base


@contextmanager
def opened_video(path: Path) -> Iterator[Video]:
    """Open a video by its content; no other file is opened, whatever it contains.

    Raises DataError for a file that is missing, empty or no video.
    """
    import av

    _require_file(path)
    # A descriptor, because ffmpeg would take names as "12:30.mp4" for a protocol.
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "rb") as file:
        try:
            container = av.open(
                file,
                "r",
                options={"format_whitelist": _FORMATS},
                metadata_errors="surrogateescape",
                io_open=_refuse,
            )
        except (av.FFmpegError, ValueError) as error:  # a MemoryError is a damaged length
            raise DataError(
                f"{path}: not a readable video (damaged, or not of a format that is read)"
            ) from error
        with container:
            yield Video(path, container)


def _refuse(name: str, flags: int, options: dict[str, str]) -> None:
    raise ValueError(f"it names another file, {name!r}")


def _require_file(path: Path) -> None:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        if path.is_symlink():
            raise DataError(
                f"{path}: a link to {os.readlink(path)!r}, which does not exist; remove it"
            ) from error
        raise DataError(f"{path}: no such file") from error
    except OSError as error:  # a loop of links
        raise DataError(f"{path}: not a readable video ({error.strerror})") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: not a file; remove it, or give it a name without this suffix")
    if status.st_size == 0:
        raise DataError(f"{path}: not a readable video (the file is empty)")


def reason(error: BaseException) -> str:
    """Return the message of an error of PyAV, without its number and the name of the file."""
    text = str(getattr(error, "strerror", None) or error)
    return text[:1].lower() + text[1:] if text else type(error).__name__


def is_cover(stream: Stream) -> bool:
    """Return whether a video track is a cover picture."""
    return bool(stream.disposition & 0x400)
