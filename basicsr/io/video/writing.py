"""Write a changed version of a video: new frames, and all else as it was."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from basicsr.io.video.encoders import CONTAINERS, choose_coding
from basicsr.io.video.frames import FrameColours, orientation_of
from basicsr.io.video.reading import Video, is_cover, opened_video, reason
from basicsr.utils.errors import DataError

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import OutputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

_BRANDS = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder"})
"""Metadata of the file itself, which the new one has of its own."""
_STATISTICS = ("BPS", "DURATION", "NUMBER_OF_", "_STATISTICS_", "ENCODER", "encoder")
"""First letters of the metadata that Matroska files have about the packets of a track."""
_SOUND_RATES = frozenset({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000})
"""Sampling rates of AAC up to that of other videos."""

_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
"""Layouts of AAC by number of channels."""


def change_video(
    source: Path, file: BinaryIO, suffix: str, change: Callable[[np.ndarray], np.ndarray]
) -> list[str]:
    """Write a video of changed frames, with the times, tracks and metadata of another video.

    Args:
        source: the video; its first video track is changed.
        file: empty file, open for writing and reading.
        suffix: one of WRITTEN_SUFFIXES; the format of the file.
        change: maps an upright H x W x 3 RGB frame to one of the same type, uint8 or uint16 (for
            videos of more than 8 bits); all new frames have one size.

    Returns:
        What the new file lacks, in words.

    Raises:
        DataError: the video is damaged, or cannot be written.
        OSError: the disk is full.
    """
    with opened_video(source) as video:
        writer: _Writer | None = None
        colours: FrameColours | None = None
        scaled = 0
        waiting: list[Packet[Any]] = []  # packets of other tracks before the first frame
        for packet in video.packets():
            if packet.stream.index != video.stream.index:
                waiting.append(packet)
            for frame in video.decoded(packet):
                colours = colours or FrameColours(frame)
                orientation = orientation_of(frame)
                scaled += (frame.width, frame.height) != (colours.width, colours.height)
                rgb = colours.rgb(frame)
                changed = orientation.stored(change(orientation.upright(colours.pixels(rgb))))
                if writer is None:
                    writer = _Writer(video, frame, changed.shape[:2], file, suffix)
                writer.write(colours, rgb, changed)
            if writer is not None:
                for each in waiting:
                    writer.copy(each)
                waiting.clear()
        lost = video.finish()
        if scaled:
            lost.append(f"the size of {scaled} frames, which differs from that of the first")
        assert writer is not None  # or there was no frame
        return lost + writer.finish()


class _Writer:
    """New file with the tracks of a video."""

    def __init__(
        self,
        video: Video,
        first: VideoFrame,
        size: tuple[int, ...],
        file: BinaryIO,
        suffix: str,
    ) -> None:
        import av

        self.video, self.file = video, file
        self.name = CONTAINERS[suffix]
        self.lost: list[str] = []
        self.sent, self.written, self.repaired, self.left_out = 0, 0, 0, 0
        self._last: int | None = None
        old = video.container
        keys = [key for key in old.metadata if key not in _BRANDS]
        # Keys as com.apple.quicktime.make are written in another place than the common ones.
        flags = {"fflags": "+bitexact"}  # no random identifiers, so that equal files are equal
        if self.name in ("mp4", "mov") and any("." in key for key in keys):
            flags["movflags"] = "use_metadata_tags"
        self.container: OutputContainer = av.open(
            file,
            "w",
            format=self.name,
            container_options=flags,
            metadata_errors="surrogateescape",
        )
        self.container.metadata.update({key: old.metadata[key] for key in keys})
        # MPEG streams begin at any time; files of the same format keep their beginning.
        is_same = self.name in old.format.name.split(",")
        self.start = Fraction(0 if is_same else old.start_time or 0, av.time_base)
        self.container.set_chapters([self._moved(chapter) for chapter in old.chapters()])
        self.tracks: dict[int, Any] = {}
        for stream in old.streams:
            if stream.index == video.stream.index:
                self._add_video(first, size)
            else:
                self._add(stream)
        try:
            self.container.start_encoding()
        except (av.FFmpegError, ValueError) as error:
            raise DataError(f"{video.path}: cannot be written ({reason(error)})") from error

    def _moved(self, chapter: Any) -> Any:
        start = round(self.start / chapter["time_base"])
        return {**chapter, "start": chapter["start"] - start, "end": chapter["end"] - start}

    def _add_video(self, first: VideoFrame, size: tuple[int, ...]) -> None:
        old = self.video.stream
        try:
            coding = choose_coding(old, first, size[0], size[1], self.name, self.video.rate())
        except DataError as error:
            raise DataError(f"{self.video.path}: {error}") from None
        self.lost += coding.lost
        new: VideoStream = self.container.add_stream(  # type: ignore[assignment]
            coding.encoder, rate=coding.rate
        )
        coding.prepare(new.codec_context, self.name)
        new.time_base = coding.time_base
        new.set_display_matrix(orientation_of(first).matrix)
        self.coding, self.new = coding, new
        self._describe(new, old)

    def _add(self, stream: Stream) -> None:
        """Add a track that is copied; sound that the format cannot hold becomes AAC."""
        if stream.type == "data" and self._is_made_by_muxer(stream):
            return
        if is_cover(stream) and self.name == "matroska":  # which attaches covers as files
            name = stream.metadata.get("filename", f"cover.{_codec(stream)}")
            kind = stream.metadata.get("mimetype", f"image/{_codec(stream)}")
            self.container.add_attachment(name, kind, _cover(self.video.path, stream.index))
            return
        if _can_hold(self.name, stream):
            new: Stream = self.container.add_stream_from_template(stream, opaque=True)
            if stream.type == "video" and not is_cover(stream):
                self.lost.append("further video tracks (they are copied, not restored)")
        elif stream.type == "audio" and stream.codec_context is not None:
            sound: Any = stream
            rate = sound.rate if sound.rate in _SOUND_RATES else 48000
            layout = _LAYOUTS.get(sound.channels, "stereo")
            new = self.container.add_stream("aac", rate=rate, layout=layout)
            self.lost.append(f"the sound's codec {_codec(stream)} (aac is written)")
        else:
            self.lost.append(f"{_article(stream.type)} track ({_codec(stream)})")
            return
        self.tracks[stream.index] = new
        self._describe(new, stream)

    def _is_made_by_muxer(self, stream: Stream) -> bool:
        """Return whether the muxer makes a track anew, of chapters or a time code."""
        if self.name not in ("mp4", "mov"):
            return False
        is_chapters = _codec(stream) == "bin_data" and bool(self.video.container.chapters())
        return is_chapters or "timecode" in stream.metadata

    def _describe(self, new: Stream, old: Stream) -> None:
        for key, value in old.metadata.items():
            is_alpha = key.lower() == "alpha_mode" and old.index == self.video.stream.index
            if not (is_alpha or key.startswith(_STATISTICS)):
                new.metadata[key] = value
        new.disposition = old.disposition

    def write(self, colours: FrameColours, rgb: VideoFrame, changed: np.ndarray) -> None:
        """Encode a frame.

        Args:
            colours: conversion of the video's frames.
            rgb: the original frame, whose time and side data are kept.
            changed: H x W x 3 in the orientation of the file.
        """
        coding = self.coding
        missing = coding.height - changed.shape[0], coding.width - changed.shape[1]
        if any(missing):
            changed = np.pad(changed, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
        if (rgb.height, rgb.width) != changed.shape[:2]:
            rgb = colours.rgb(rgb, coding.height, coding.width)
        colours.fill(rgb, changed)
        frame = colours.coded(rgb, coding.pix_fmt, coding.colour[3] or 1)
        frame.pict_type = 0  # or the encoder would repeat the types of the original's frames
        frame.pts = self._time_of(rgb)
        frame.time_base = coding.time_base
        self._mux_video(frame)

    def _time_of(self, frame: VideoFrame) -> int:
        time = frame.pts
        if time is not None:
            time -= round(self.start / self.coding.time_base)
        if time is None or (self._last is not None and time <= self._last):
            base = self.coding.time_base
            is_near = time is not None and (self._last or 0) - time < 1 / base  # within a second
            step = 1 if is_near else max(round(1 / self.coding.rate / base), 1)
            time = 0 if self._last is None else self._last + step
            self.repaired += 1
        self._last = time
        return time

    def _mux_video(self, frame: VideoFrame | None) -> None:
        import av

        try:
            for packet in self.new.encode(frame):
                if frame is None and self.written == 0 and self.sent == 1:
                    packet.dts = packet.pts  # x265 does not set it for a single frame
                self.container.mux_one(packet)
                self.written += 1
            self.sent += frame is not None
        except av.FFmpegError as error:
            raise DataError(f"{self.video.path}: cannot be written ({reason(error)})") from error

    def copy(self, packet: Packet[Any]) -> None:
        """Copy a packet of another track, or convert its sound."""
        import av

        new = self.tracks.get(packet.stream.index)
        if new is None:
            return
        start = round(self.start / packet.time_base)
        if packet.pts is not None:
            packet.pts -= start
        packet.dts = packet.pts if packet.dts is None else packet.dts - start
        if is_cover(packet.stream):
            packet.pts = packet.dts = 0
        try:
            if new.codec_context is not None and new.codec_context.is_encoder:
                for frame in packet.decode():
                    self.container.mux(new.encode(frame))
                if packet.size == 0:  # the end
                    self.container.mux(new.encode(None))
            elif packet.dts is not None and packet.size:
                packet.stream = new
                self.container.mux_one(packet)
        except av.FFmpegError:
            self.left_out += 1

    def finish(self) -> list[str]:
        """Complete the file; return in words what it lacks. Raises DataError if it is not whole."""
        import av

        self._mux_video(None)
        try:
            self.container.close()
        except av.FFmpegError as error:
            raise DataError(f"{self.video.path}: cannot be written ({reason(error)})") from error
        lost = list(dict.fromkeys(self.lost))
        if self.repaired:
            lost.append(f"{self.repaired} presentation times that do not increase")
        if self.left_out:
            lost.append(f"{self.left_out} damaged packets of sound or subtitles")
        return lost + self._missing()

    def _missing(self) -> list[str]:
        """Read the new file once; return in words which metadata it lacks."""
        import av

        self.file.flush()
        self.file.seek(0)
        old = self.video.container
        try:
            with av.open(self.file, "r", metadata_errors="surrogateescape") as new:
                count = sum(packet.size > 0 for packet in new.demux(video=0))
                known = {key.lower() for key in new.metadata}
                chapters = len(new.chapters())
        except (av.FFmpegError, ValueError) as error:
            raise DataError(
                f"{self.video.path}: cannot be written so that it can be read ({reason(error)})"
            ) from error
        finally:
            self.file.seek(0, io.SEEK_END)
        if count < self.written:
            raise DataError(
                f"{self.video.path}: cannot be written so that it can be read ({count} of "
                f"{self.written} frames)"
            )
        known |= _BRANDS | {"software"}
        keys = [key for key in old.metadata if key.lower() not in known]
        lost = [f"metadata ({', '.join(sorted(keys))})"] if keys else []
        if chapters < len(old.chapters()):
            lost.append("chapters")
        return lost


def _can_hold(container: str, stream: Stream) -> bool:
    """Return whether a file of this format can hold a track as it is."""
    import av

    trial = av.open(io.BytesIO(), "w", format=container)
    try:
        trial.add_stream_from_template(stream, opaque=True)
        trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


def _cover(path: Path, index: int) -> bytes:
    """Return the file of a cover picture."""
    with opened_video(path) as video:
        return next((bytes(packet) for packet in video.container.demux(index)), b"")


def _codec(stream: Stream) -> str:
    if stream.codec_context is not None:
        return stream.codec_context.codec.canonical_name
    return str(getattr(stream, "name", None) or "unknown codec")


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
