"""Restore photographs and videos from files to files, with networks for gray or RGB images."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from basicsr.archs import RestorationNetwork
from basicsr.archs.strip_progress import progress_to
from basicsr.inference.jobs import Records, RestoreJob
from basicsr.inference.progress import Progress
from basicsr.inference.restorer import Restorer
from basicsr.inference.segments import FrameReader, RestoredFrames, Segment, segments_of
from basicsr.io.animations import is_animation, read_animation
from basicsr.io.images import natural_key, read_image, to_levels
from basicsr.io.photographs import read_photograph
from basicsr.io.video.reading import read_frames
from basicsr.io.video.writing import change_video
from basicsr.utils.devices import is_out_of_memory
from basicsr.utils.errors import (
    CheckpointError,
    DataError,
    NonFiniteError,
    OptionsError,
    UserError,
    remedy,
)
from basicsr.utils.files import atomic_write
from basicsr.utils.team import ALONE, Team

_GAP = 8
"""White pixels between the two images of a comparison."""
_LARGEST_JPEG = 65500
"""Longest side of a JPEG file, in pixels."""
_ENDING_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE})
"""Errors that the next file would meet as well."""


class Outcome(NamedTuple):
    """Numbers of files restored now and before, and an error message for each other file.

    `left_out` has the names of the files that lack something of their originals, by what that is.
    """

    restored: int
    before: int
    failures: list[str]
    left_out: Mapping[str, list[str]] = MappingProxyType({})


def restore_files(
    restorer: Restorer | ByChannels,
    jobs: Sequence[RestoreJob],
    records: Records,
    compare: bool = False,
    team: Team = ALONE,
    report: Callable[[float], None] | None = None,
) -> Outcome:
    """Restore the files that are not restored yet. A file that fails does not stop the others.

    Args:
        restorer: network that restores the images, or one for RGB and one for gray images.
        jobs: files to restore, the same in all processes.
        records: files that were restored before; the new ones are added.
        compare: also write the degraded and the restored image side by side.
        team: processes that share the jobs; the outcome is of this process alone.
        report: is called with the part of the pixels that is restored.

    Raises:
        OSError: the disk is full, or a folder is not writable.
    """
    restored, before, failures = 0, 0, []
    left_out: dict[str, list[str]] = {}
    with Progress(jobs, team, report) as bar:
        shared = _restore_segments(restorer, jobs, records, bar, team)
        for job in _taken(jobs, shared, team):
            bar.set_description(job.source.name)
            try:
                if records.has(job):
                    before += 1
                    bar.skip(job.pixels())
                else:
                    with _errors_of(job.source):
                        restore = _write_shared_video if job in shared else _restore
                        for words in restore(restorer, job, records, bar):
                            left_out.setdefault(words, []).append(job.source.name)
                    restored += 1
                if compare:
                    _write_comparison(job, records)
            except UserError as error:
                failures.append(str(error))
            except OSError as error:
                if error.errno in _ENDING_ERRORS:
                    raise
                failures.append(f"{error.filename or job.target}: {error.strerror or error}")
    return Outcome(restored, before, failures, left_out)


def _taken(
    jobs: Sequence[RestoreJob], shared: Collection[RestoreJob], team: Team
) -> Iterator[RestoreJob]:
    """Yield the jobs that this process takes; videos in `shared` when all segments are restored."""
    yield from team.take("jobs", [job for job in jobs if job not in shared])
    if shared:
        team.wait("segments")
        yield from team.take("videos", [job for job in jobs if job in shared])


def _restore_segments(
    restorer: Restorer | ByChannels,
    jobs: Sequence[RestoreJob],
    records: Records,
    bar: Progress,
    team: Team,
) -> Collection[RestoreJob]:
    """Restore this process's segments of long videos; return the videos that have segments."""
    if team.size == 1:
        return ()
    found = team.from_main("segments", segments_of(jobs, records) if team.is_main else None)
    segments = [Segment(jobs[number], start, is_last) for number, start, is_last in found]
    for segment in team.take("segments", segments):
        bar.set_description(segment.job.source.name)
        segment.job.target.parent.mkdir(parents=True, exist_ok=True)
        stored = RestoredFrames(segment.job, records)
        # An error leaves frames out. It is reported by the process that writes the video.
        with suppress(UserError), _errors_of(segment.job.source):
            for number, frame in segment.frames():
                if number not in stored:
                    restored = restore_photograph(restorer, frame)
                    stored.add(number, to_levels(restored, frame.dtype))
                bar.update(frame.shape[0] * frame.shape[1])
    return {segment.job for segment in segments}


def _write_shared_video(
    restorer: Restorer | ByChannels, job: RestoreJob, records: Records, bar: tqdm
) -> Sequence[str]:
    """Write a video from the stored frames, which are removed; `bar` has counted them before."""
    stored = RestoredFrames(job, records)
    reader: Any = FrameReader(stored, lambda frame: restore_photograph(restorer, frame))
    left_out = _restore_video(reader, job, records, tqdm(disable=True))
    stored.remove()
    return left_out


def joined(team: Team, outcome: Outcome) -> Outcome:
    """Return the outcome of all processes in the main one, and that of this process in others."""
    plain = outcome._replace(left_out=dict(outcome.left_out))  # of types that JSON holds
    outcomes = [Outcome(*each) for each in team.to_main("outcome", plain)]
    if len(outcomes) <= 1:
        return outcome
    left_out: dict[str, list[str]] = {}
    for each in outcomes:
        for words, names in each.left_out.items():
            left_out.setdefault(words, []).extend(names)
    return Outcome(
        sum(each.restored for each in outcomes),
        sum(each.before for each in outcomes),
        sorted((text for each in outcomes for text in each.failures), key=natural_key),
        {words: sorted(names, key=natural_key) for words, names in left_out.items()},
    )


class ByChannels(NamedTuple):
    """Restorers of RGB images and of gray images."""

    rgb: Restorer
    gray: Restorer

    def for_channels(self, channels: int) -> Restorer:
        return self.gray if channels == 1 else self.rgb


def require_photographs(network: RestorationNetwork, file: Path) -> None:
    """Raise CheckpointError unless the network, read from `file`, restores gray or RGB images."""
    channels = (network.in_channels, network.out_channels)
    if channels not in ((1, 1), (3, 3)):
        views = " (a left and a right view)" if channels == (6, 3) else ""
        what_to_do = remedy(
            "restore a data set of such images with basicsr/test.py", page="choose other weights"
        )
        raise CheckpointError(
            f"{file}: {type(network).__name__} maps {network.in_channels} channels{views} to "
            f"{network.out_channels}, but a photograph has 1 or 3; {what_to_do}"
        )


def restore_photograph(restorer: Restorer | ByChannels, image: np.ndarray) -> np.ndarray:
    """Restore a gray or an RGB image with a network for either.

    A gray network restores each channel of an RGB image by itself. An RGB network restores a gray
    image as three equal channels; the result is their mean.

    Args:
        restorer: restorer of a network for gray or for RGB images, or of both.
        image: H x W x 1 or H x W x 3, uint8 or uint16.

    Returns:
        The restored float32 image in [0, 1], with the shape of `image`.
    """
    channels = image.shape[2]
    if isinstance(restorer, ByChannels):
        restorer = restorer.for_channels(channels)
    if channels == restorer.network.in_channels:
        return restorer(image)
    if channels == 1:
        return restorer(image.repeat(3, axis=2)).mean(axis=2, keepdims=True)
    return np.concatenate([restorer(image[..., [channel]]) for channel in range(3)], axis=2)


def _restore(
    restorer: Restorer | ByChannels, job: RestoreJob, records: Records, bar: tqdm
) -> Sequence[str]:
    """Restore a file; return in words what the new file lacks."""
    folder = job.target.parent
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):  # rather now than after minutes
        raise PermissionError(errno.EACCES, "no permission to write into it", str(folder))
    if job.is_video:
        return _restore_video(restorer, job, records, bar)
    if is_animation(job.source):
        content, left_out = _restored_animation(restorer, job, bar)
    else:
        photograph = read_photograph(job.source)
        colours = photograph.colours[..., :1] if photograph.gray else photograph.colours
        channels = colours.shape[2]
        suited = restorer.for_channels(channels) if isinstance(restorer, ByChannels) else restorer
        passes = 3 if suited.network.in_channels < channels else 1
        strips = StripsOn(bar, job.pixels(), passes)
        with progress_to(strips):
            restored = restore_photograph(suited, colours)
        strips.finish()
        content = photograph.encoded(restored)
        left_out = photograph.left_out
    with atomic_write(job.target) as file:
        file.write(content)
        records.add(job, len(content))
    return left_out


class StripsOn:
    """Report of the strips of one photograph on a progress bar."""

    def __init__(self, bar: tqdm, pixels: int, passes: int) -> None:
        self.bar, self.pixels, self.passes = bar, pixels, passes
        self.first, self.finished, self.part = bar.n, 0, 0.0

    def __call__(self, strips: int, part: float) -> None:
        if part < self.part:  # the next pass, over another channel
            self.finished += 1
        self.part = part
        self.bar.set_postfix_str(f"{strips} strips", refresh=False)
        done = min((self.finished + part) / self.passes, 1.0)
        self.bar.update(self.first + round(self.pixels * done) - self.bar.n)

    def finish(self) -> None:
        """Count the photograph as done, which is all that is reported of small ones."""
        self.bar.set_postfix_str("", refresh=False)
        self.bar.update(self.first + self.pixels - self.bar.n)


def _restored_animation(
    restorer: Restorer | ByChannels, job: RestoreJob, bar: tqdm
) -> tuple[bytes, Sequence[str]]:
    animation = read_animation(job.source)
    pixels = animation.height * animation.width
    bar.total += pixels * (len(animation.durations) - 1)

    def restored() -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        for colours, alpha in animation.frames():
            yield restore_photograph(restorer, colours), alpha
            bar.update(pixels)

    return animation.encoded(restored()), animation.left_out


def _restore_video(
    restorer: Restorer | ByChannels, job: RestoreJob, records: Records, bar: tqdm
) -> list[str]:
    def restored(frame: np.ndarray) -> np.ndarray:
        image = to_levels(restore_photograph(restorer, frame), frame.dtype)
        bar.update(frame.shape[0] * frame.shape[1])
        return image

    with atomic_write(job.target) as file:
        lost = change_video(job.source, file, job.target.suffix.lower(), restored)
        records.add(job, file.tell())
    return ["; ".join(lost)] if lost else []  # one line for each file


def _write_comparison(job: RestoreJob, records: Records) -> None:
    """Write the degraded and the restored version side by side, unless that file is up to date."""
    comparison = RestoreJob(job.target, job.comparison)
    if records.has(comparison):
        return
    if job.is_video:
        _write_video_comparison(job, records)
        return
    (degraded, _), (restored, profile) = _shown(job.source), _shown(job.target)
    picture = Image.fromarray(_beside(degraded, restored))
    picture.thumbnail((_LARGEST_JPEG, _LARGEST_JPEG))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=95, icc_profile=profile)
    with atomic_write(comparison.target) as stream:
        stream.write(content.getbuffer())
        records.add(comparison, content.tell())


def _shown(path: Path) -> tuple[np.ndarray, bytes | None]:
    """Return a photograph, or the first frame of an animation, as 8-bit RGB with its profile."""
    if is_animation(path):
        return read_image(path), None
    photograph = read_photograph(path)
    return _eight_bits(photograph.colours), photograph.profile


def _write_video_comparison(job: RestoreJob, records: Records) -> None:
    restored_frames = read_frames(job.target)

    def beside(degraded: np.ndarray) -> np.ndarray:
        restored = next(restored_frames, None)
        if restored is None:
            raise DataError(f"{job.target}: has fewer frames than {job.source}; remove it")
        levels = restored / np.float32(np.iinfo(restored.dtype).max)
        return _beside(degraded, to_levels(levels, degraded.dtype))  # their bits may differ

    with atomic_write(job.comparison) as file:
        change_video(job.source, file, job.comparison.suffix, beside)
        records.add(RestoreJob(job.target, job.comparison), file.tell())


def _eight_bits(image: np.ndarray) -> np.ndarray:
    return image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)


def _beside(degraded: np.ndarray, restored: np.ndarray) -> np.ndarray:
    height, width = degraded.shape[:2]  # restored frames of a video may be one pixel larger
    gap = np.full((height, _GAP, 3), np.iinfo(degraded.dtype).max, degraded.dtype)
    return np.hstack([degraded, gap, restored[:height, :width]])


@contextmanager
def _errors_of(source: Path) -> Iterator[None]:
    """Name the file in errors of the network; turn a lack of memory into such an error."""
    try:
        yield
    except OptionsError as error:  # the budget is too small even for strips
        raise OptionsError(f"{source}: {error}") from None
    except NonFiniteError as error:
        raise NonFiniteError(f"{source}: {error}") from None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        limit = remedy("set a limit with --memory, or ", page="")
        raise DataError(f"{source}: not enough memory; {limit}use a smaller version") from None
