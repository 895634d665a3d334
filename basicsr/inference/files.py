"""Restoring photographs and videos from files to files."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from basicsr.inference.jobs import Records, Task
from basicsr.inference.restorer import Restorer
from basicsr.io.images import to_levels
from basicsr.io.photographs import read_photograph
from basicsr.io.videos import read_frames, video_facts, write_video
from basicsr.utils.devices import is_out_of_memory
from basicsr.utils.errors import DataError, OptionsError, UserError
from basicsr.utils.files import atomic_write

_GAP = 8  # white pixels between the two sides of a comparison
_LARGEST_JPEG = 65500  # pixels of a side


class Outcome(NamedTuple):
    """How many files were restored now and before, and what is wrong with the others."""

    restored: int
    before: int
    failures: list[str]


def restore_files(
    restorer: Restorer, tasks: Sequence[Task], records: Records, compare: bool = False
) -> Outcome:
    """Do the tasks that are not done yet, and, to `compare`, show both images side by side.

    What is wrong with one file does not keep the others from being restored. Raises OSError where
    nothing more can be written.
    """
    restored, before, failures = 0, 0, []
    with tqdm(
        total=sum(task.pixels() for task in tasks), unit="px", unit_scale=True, disable=None
    ) as bar:
        for task in tasks:
            bar.set_description(task.source.name)
            try:
                if records.has(task):
                    before += 1
                    bar.total -= task.pixels()  # so that the time to go is that of the others
                    bar.refresh()
                else:
                    with _memory_told(task.source):
                        _restore(restorer, task, records, bar)
                    restored += 1
                if compare:
                    _write_comparison(task)
            except UserError as error:
                failures.append(str(error))
    return Outcome(restored, before, failures)


def _restore(restorer: Restorer, task: Task, records: Records, bar: tqdm) -> None:
    task.target.parent.mkdir(parents=True, exist_ok=True)
    if task.is_video:
        _restore_video(restorer, task, records, bar)
        return
    photograph = read_photograph(task.source)
    content = photograph.encoded(restorer(photograph.colours))
    with atomic_write(task.target) as file:
        file.write(content)
        records.add(task, len(content))
    bar.update(task.pixels())


def _restore_video(restorer: Restorer, task: Task, records: Records, bar: tqdm) -> None:
    def restored_frames() -> Iterator[np.ndarray]:
        for frame in read_frames(task.source):
            yield to_levels(restorer(frame), np.uint8)
            bar.update(frame.shape[0] * frame.shape[1])

    with _appearing(task.target) as aside:
        write_video(
            aside, restored_frames(), video_facts(task.source).frames_per_second, task.source
        )
        records.add(task, aside.stat().st_size)


def _write_comparison(task: Task) -> None:
    """Rainy and restored side by side, unless that is there already."""
    file = task.comparison
    if file.exists() and file.stat().st_mtime_ns >= task.target.stat().st_mtime_ns:
        return
    if task.is_video:
        pairs = zip(read_frames(task.source), read_frames(task.target), strict=False)
        with _appearing(file) as aside:
            write_video(
                aside,
                (_beside(*pair) for pair in pairs),
                video_facts(task.target).frames_per_second,
                task.source,
            )
        return
    rainy, restored = read_photograph(task.source), read_photograph(task.target)
    picture = Image.fromarray(_beside(_eight_bits(rainy.colours), _eight_bits(restored.colours)))
    picture.thumbnail((_LARGEST_JPEG, _LARGEST_JPEG))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=95, icc_profile=restored.profile)
    with atomic_write(file) as stream:
        stream.write(content.getbuffer())


def _eight_bits(image: np.ndarray) -> np.ndarray:
    return image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)


def _beside(rainy: np.ndarray, restored: np.ndarray) -> np.ndarray:
    height, width = rainy.shape[:2]  # a video's restored frames may be a pixel larger
    gap = np.full((height, _GAP, 3), 255, np.uint8)
    return np.hstack([rainy, gap, restored[:height, :width]])


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A file aside that takes its name once it is complete."""
    aside = target.with_name(f".part.{target.name}")
    try:
        yield aside
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def _memory_told(source: Path) -> Iterator[None]:
    try:
        yield
    except OptionsError as error:  # not even for strips
        raise OptionsError(f"{source}: {error}") from None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DataError(f"{source}: not enough memory; set a limit with --memory") from None
