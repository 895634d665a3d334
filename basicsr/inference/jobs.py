"""What is to be restored from which file to which, and what was restored before."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from basicsr.io.images import SUFFIXES, image_size, list_images
from basicsr.io.videos import VIDEO_SUFFIXES, WRITTEN_SUFFIXES, video_facts
from basicsr.utils.errors import DataError

RECORDS = ".restored.jsonl"


class Task(NamedTuple):
    """A file, and the file that is to hold it restored."""

    source: Path
    target: Path

    @property
    def is_video(self) -> bool:
        return self.source.suffix.lower() in VIDEO_SUFFIXES

    @property
    def comparison(self) -> Path:
        suffix = ".compare.mp4" if self.is_video else ".compare.jpg"
        return self.target.with_name(self.target.name + suffix)

    def pixels(self) -> int:
        """How much there is to do, of a video as its header says; of unreadable files nothing."""
        try:
            if self.is_video:
                facts = video_facts(self.source)
                return facts.height * facts.width * facts.frames
            height, width = image_size(self.source)
            return height * width
        except DataError:  # it is reported when its turn comes
            return 0


def find_tasks(inputs: Sequence[str], folder: Path) -> list[Task]:
    """What there is to restore into `folder`.

    An input is a file, a folder, whose structure is kept, or a pattern of either. Hidden files, and
    what lies in `folder` itself, are left out. Raises DataError where an input is missing, where
    there is nothing, or where a file would be written over an input or over another result.
    """
    tasks: dict[Path, Task] = {}
    for source, name in (found for each in inputs for found in _files(each, folder)):
        task = Task(source, folder / _written_name(name))
        other = tasks.setdefault(task.target, task)
        if not source.samefile(other.source):
            raise DataError(
                f"{other.source} and {source} would both become {task.target}; "
                "restore them into two folders"
            )
        if task.target.exists() and task.target.samefile(source):
            raise DataError(f"{source}: would be overwritten; choose another folder with -o")
    if not tasks:
        raise DataError(f"{', '.join(inputs)}: nothing to restore outside of {folder}")
    return list(tasks.values())


def _files(given: str, folder: Path) -> Iterator[tuple[Path, Path]]:
    """The files that an input stands for, each with its name below the output folder."""
    if Path(given).exists():
        paths = [Path(given)]
    else:
        paths = [Path(each) for each in sorted(glob.glob(given, recursive=True))]
    if not paths:
        raise DataError(f"{given}: no such file or folder")
    inside = folder.resolve()
    for path in paths:
        if not path.is_dir():
            yield path, Path(path.name)
        elif path.resolve() == inside:
            raise DataError(f"{path}: would be overwritten; choose another folder with -o")
        else:
            for file in list_images(path, SUFFIXES | VIDEO_SUFFIXES):
                if not file.resolve().is_relative_to(inside):
                    yield file, file.relative_to(path)


def _written_name(name: Path) -> Path:
    other = {*VIDEO_SUFFIXES} - {*WRITTEN_SUFFIXES}
    return name.with_suffix(".mp4") if name.suffix.lower() in other else name


class Records:
    """What was restored into a folder, and how: a line for each file in its `.restored.jsonl`.

    A line is written just before its file appears, and tells its size. So every file that was made
    here is known; others, and those that were changed since, are never written over.

    Args:
        settings: what else than its source a result depends on.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings = settings
        self.file = folder / RECORDS
        self._lines = list(_json_lines(self.file))

    def has(self, task: Task) -> bool:
        """Whether the task is done, with these settings, and its source still the same.

        Raises DataError where another file is in its place.
        """
        if not task.target.exists():
            return False
        name, size = self._name(task), task.target.stat().st_size
        made = [line for line in self._lines if (line["file"], line["bytes"]) == (name, size)]
        if not made:
            raise DataError(
                f"{task.target}: is in the way, as it was not made by this command or was changed "
                "since; move it, or choose another folder with -o"
            )
        return made[-1] == self._line(task, size)

    def add(self, task: Task, size: int) -> None:
        """Call just before the target, of `size` bytes, appears."""
        line = self._line(task, size)
        self._lines.append(line)
        try:
            with self.file.open("a") as file:
                file.write("\n" + json.dumps(line))  # a line that was cut off stays one of its own
        except OSError as error:  # of a write, it does not say which file
            raise OSError(error.errno, error.strerror, str(self.file)) from error

    def _name(self, task: Task) -> str:
        return task.target.relative_to(self.folder).as_posix()

    def _line(self, task: Task, size: int) -> dict[str, Any]:
        source = task.source.stat()
        return {
            "file": self._name(task),
            "bytes": size,
            "source_bytes": source.st_size,
            "source_modified": source.st_mtime_ns,
            **self.settings,
        }


def _json_lines(file: Path) -> Iterator[dict[str, Any]]:
    if file.exists():
        for line in file.read_text().splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:  # empty, or cut off
                continue
