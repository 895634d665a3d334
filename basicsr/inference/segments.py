"""Long videos shared among processes: each restores segments, and one writes the video."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from basicsr.inference.jobs import Records, RestoreJob
from basicsr.io.images import read_image, write_png
from basicsr.io.video.reading import read_frames, video_facts
from basicsr.utils.errors import DataError

FRAMES = 32
"""Frames of a segment."""


class Segment(NamedTuple):
    """Frames from `start` on of a video; the last segment goes to its end."""

    job: RestoreJob
    start: int
    is_last: bool

    def frames(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the numbers and the frames, H x W x 3."""
        frames = enumerate(read_frames(self.job.source, self.start), self.start)
        yield from frames if self.is_last else islice(frames, FRAMES)


def segments_of(jobs: Sequence[RestoreJob], records: Records) -> list[tuple[int, int, bool]]:
    """Return job number, first frame and `is_last` of the segments of long videos.

    Videos that are restored already, or cannot be read, have none: they are no work for others.
    """
    found = []
    for number, job in enumerate(jobs):
        try:
            if not job.is_video or records.has(job):
                continue
            starts = range(0, max(video_facts(job.source).frames, 1), FRAMES)
        except (DataError, OSError):  # reported when the video is restored
            continue
        if len(starts) > 1:
            found += [(number, start, start == starts[-1]) for start in starts]
    return found


class RestoredFrames:
    """Restored frames of one video as PNG files in a hidden folder beside the new video.

    The folder's name depends on the video and on the settings, so that the frames of a killed run
    are used if they are still right.
    """

    def __init__(self, job: RestoreJob, records: Records) -> None:
        status = job.source.stat()
        facts = [job.target.name, status.st_size, status.st_mtime_ns, records.settings]
        digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
        self.folder = job.target.with_name(f".frames-{digest}")

    def __contains__(self, number: int) -> bool:
        return self._file(number).exists()

    def add(self, number: int, levels: np.ndarray) -> None:
        """Store a frame, H x W x 3 of uint8 or uint16."""
        write_png(self._file(number), levels)

    def read(self, number: int) -> np.ndarray:
        """Return a stored frame as float32 in [0, 1]."""
        levels = read_image(self._file(number), "rgb", "as_stored")
        return levels.astype(np.float32) / np.float32(np.iinfo(levels.dtype).max)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:08d}.png"


class FrameReader:
    """Stand-in for a restorer of the frames of one video, in their order.

    It returns the stored frames, and restores those that are missing: where a segment has failed,
    the error is the same as without segments.

    Args:
        frames: the stored frames.
        restore: function that restores a frame to float32 in [0, 1].
    """

    network = SimpleNamespace(in_channels=3)

    def __init__(self, frames: RestoredFrames, restore: Callable[[np.ndarray], np.ndarray]) -> None:
        self.frames, self.restore, self.number = frames, restore, -1

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        self.number += 1
        known = self.number in self.frames
        return self.frames.read(self.number) if known else self.restore(frame)
