"""Read and write videos frame by frame: OpenCV reads; ffmpeg writes, or OpenCV without it."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from basicsr.utils.errors import DataError

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mov", ".m4v", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".wmv"}
)
WRITTEN_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".mkv"})  # others are written as .mp4
_H264 = (  # visually lossless, in the colour space that players assume
    *("-c:v", "libx264", "-crf", "16", "-pix_fmt", "yuv420p"),
    *("-vf", "scale=out_color_matrix=bt709:out_range=tv", "-color_range", "tv"),
    *("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"),
)


class VideoFacts(NamedTuple):
    """Facts in the header of a video; the number of frames may be an estimate."""

    height: int
    width: int
    frames: int
    frames_per_second: float


def video_facts(path: Path) -> VideoFacts:
    """Read the header of a video. Raises DataError if OpenCV cannot read the file."""
    import cv2

    with _opened(path) as video:
        height = round(video.get(cv2.CAP_PROP_FRAME_HEIGHT))
        width = round(video.get(cv2.CAP_PROP_FRAME_WIDTH))
        frames = max(round(video.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        return VideoFacts(height, width, frames, video.get(cv2.CAP_PROP_FPS) or 25.0)


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """Yield the frames as H x W x 3 uint8 RGB, turned upright.

    Raises DataError if there is none, or less than 90 % of the number in the header.
    """
    announced = video_facts(path).frames
    count = 0
    with _opened(path) as video:
        while True:
            found, frame = video.read()
            if not found:
                break
            count += 1
            yield np.ascontiguousarray(frame[..., ::-1])
    if count < 0.9 * announced or count == 0:
        raise DataError(f"{path}: damaged; {count} of {announced} frames can be read")


def has_ffmpeg() -> bool:
    """Return whether the program ffmpeg is installed."""
    return shutil.which("ffmpeg") is not None


def write_video(
    path: Path, frames: Iterator[np.ndarray], frames_per_second: float, sound: Path
) -> None:
    """Write a video frame by frame: H.264 by ffmpeg, or MPEG-4 without sound by OpenCV.

    Args:
        path: file to write; its suffix is one of WRITTEN_SUFFIXES.
        frames: H x W x 3 uint8 RGB of one size; odd sides are extended by a pixel.
        frames_per_second: frame rate.
        sound: video whose sound and metadata are copied.

    Raises:
        DataError: the video cannot be written.
    """
    frames = map(_even, frames)
    if has_ffmpeg():
        _by_ffmpeg(path, frames, frames_per_second, sound)
    else:
        _by_opencv(path, frames, frames_per_second)


def _even(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _by_ffmpeg(
    path: Path, frames: Iterator[np.ndarray], frames_per_second: float, sound: Path
) -> None:
    first = next(frames)
    size = f"{first.shape[1]}x{first.shape[0]}"
    command = [
        *("ffmpeg", "-y", "-loglevel", "error"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", size),
        *("-framerate", str(frames_per_second), "-i", "pipe:0", "-i", str(sound)),
        *("-map", "0:v", "-map", "1:a?", "-map_metadata", "1"),
        *("-c:a", _sound_codec(sound, path.suffix), *_H264, str(path)),
    ]
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=messages)
        assert process.stdin is not None
        try:
            with process.stdin as pipe:
                for frame in itertools.chain([first], frames):
                    pipe.write(frame.data)
        except BrokenPipeError:  # ffmpeg has ended with an error message
            pass
        except BaseException:
            process.kill()
            raise
        finally:
            code = process.wait()
        if code:
            messages.seek(0)
            lines = messages.read().decode(errors="replace").split("\n")
            raise DataError(f"{path}: ffmpeg could not write it ({lines[0]})")


def _sound_codec(video: Path, suffix: str) -> str:
    """Return "copy" if a file with this suffix can hold the video's sound as it is, else "aac"."""
    with tempfile.NamedTemporaryFile(suffix=suffix) as trial:
        command = ["ffmpeg", "-y", "-nostdin", "-i", str(video), "-t", "1", "-vn", "-c", "copy"]
        done = subprocess.run([*command, trial.name], capture_output=True)
    return "aac" if done.returncode else "copy"


def _by_opencv(path: Path, frames: Iterator[np.ndarray], frames_per_second: float) -> None:
    import cv2

    first = next(frames)
    video = cv2.VideoWriter(
        str(path), cv2.VideoWriter.fourcc(*"mp4v"), frames_per_second, first.shape[1::-1]
    )
    if not video.isOpened():
        raise DataError(f"{path}: OpenCV cannot write this video; install ffmpeg")
    count = 0
    for frame in itertools.chain([first], frames):
        video.write(np.ascontiguousarray(frame[..., ::-1]))
        count += 1
    video.release()
    if video_facts(path).frames != count:  # OpenCV does not report a full disk
        raise DataError(f"{path}: could not be written; is the disk full?")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    for name, quiet in (("OPENCV_LOG_LEVEL", "SILENT"), ("OPENCV_FFMPEG_LOGLEVEL", "-8")):
        os.environ.setdefault(name, quiet)  # the errors below are one line
    import cv2

    if not path.is_file():
        raise DataError(f"{path}: no such file")
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        if not video.isOpened():
            raise DataError(f"{path}: not a readable video")
        yield video
    finally:
        video.release()
