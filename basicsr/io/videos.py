"""Videos frame by frame: read by OpenCV, written by ffmpeg, or by OpenCV where that is missing."""

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
WRITTEN_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".mkv"})  # the others become .mp4
_H264 = (  # at a quality that does not show, in the colours that players expect
    *("-c:v", "libx264", "-crf", "16", "-pix_fmt", "yuv420p"),
    *("-vf", "scale=out_color_matrix=bt709:out_range=tv", "-color_range", "tv"),
    *("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"),
)


class VideoFacts(NamedTuple):
    """What a video's header tells; the number of frames may be an estimate."""

    height: int
    width: int
    frames: int
    frames_per_second: float


def video_facts(path: Path) -> VideoFacts:
    """Raises DataError where the file is no video that OpenCV can read."""
    import cv2

    with _opened(path) as video:
        height, width, frames = (
            round(video.get(fact))
            for fact in (
                cv2.CAP_PROP_FRAME_HEIGHT,
                cv2.CAP_PROP_FRAME_WIDTH,
                cv2.CAP_PROP_FRAME_COUNT,
            )
        )
        return VideoFacts(height, width, max(frames, 0), video.get(cv2.CAP_PROP_FPS) or 25.0)


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """The frames, H x W x 3 uint8 RGB, turned upright.

    Raises DataError where there is none, or where they end well before the header says.
    """
    announced = video_facts(path).frames
    count = 0
    with _opened(path) as video:
        while True:
            there, frame = video.read()
            if not there:
                break
            count += 1
            yield np.ascontiguousarray(frame[..., ::-1])
    if count < 0.9 * announced or count == 0:
        raise DataError(f"{path}: damaged; {count} of {announced} frames can be read")


def has_ffmpeg() -> bool:
    return shutil.which("ffmpeg") is not None


def write_video(
    path: Path, frames: Iterator[np.ndarray], frames_per_second: float, sound: Path
) -> None:
    """Write H x W x 3 uint8 RGB frames, all of one size, as they come; odd sides grow by a pixel.

    Where ffmpeg is there, as H.264 with the sound and the notes of the video `sound`; else as
    MPEG-4 without them. Raises DataError where the video cannot be written.
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
        except BrokenPipeError:  # ffmpeg has given up; it tells why
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
    """`copy` where a file with this suffix can hold the video's sound as it is, else AAC."""
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
    if video_facts(path).frames != count:  # it does not tell of a full disk
        raise DataError(f"{path}: could not be written; is the disk full?")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    for name, quiet in (("OPENCV_LOG_LEVEL", "SILENT"), ("OPENCV_FFMPEG_LOGLEVEL", "-8")):
        os.environ.setdefault(name, quiet)  # the errors below say it in one line
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
