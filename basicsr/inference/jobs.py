"""Which file is restored to which, and the record of files that were restored before."""

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


class RestoreJob(NamedTuple):
    """A photograph or video, and the file that its restored version is written to."""

    source: Path
    target: Path

    @property
    def is_video(self) -> bool:
        return self.source.suffix.lower() in VIDEO_SUFFIXES

    @property
    def comparison(self) -> Path:
        """File that shows the source and the restored version side by side."""
        suffix = ".compare.mp4" if self.is_video else ".compare.jpg"
        return self.target.with_name(self.target.name + suffix)

    def pixels(self) -> int:
        """Return the number of pixels, for progress bars: by the header, 0 if it is unreadable."""
        try:
            if self.is_video:
                facts = video_facts(self.source)
                return facts.height * facts.width * facts.frames
            height, width = image_size(self.source)
            return height * width
        except DataError:  # reported when the file is restored
            return 0


def find_jobs(inputs: Sequence[str], folder: Path) -> list[RestoreJob]:
    """Return a job for every photograph and video of `inputs`.

    Hidden files are skipped, and so are files in `folder` itself.

    Args:
        inputs: files, folders (whose structure is kept), or patterns of files and folders.
        folder: folder for the restored files.

    Raises:
        DataError: an input does not exist, there is nothing to restore, or a restored file would
            overwrite an input or another restored file.
    """
    jobs: dict[Path, RestoreJob] = {}
    for each in inputs:
        for source, name in _files(each, folder):
            job = RestoreJob(source, folder / _output_name(name))
            other = jobs.setdefault(job.target, job)
            if not source.samefile(other.source):
                raise DataError(
                    f"{other.source} and {source} would both become {job.target}; "
                    "restore them into two folders"
                )
            if job.target.exists() and job.target.samefile(source):
                raise DataError(f"{source}: would be overwritten; choose another folder with -o")
    if not jobs:
        raise DataError(f"{', '.join(inputs)}: nothing to restore outside of {folder}")
    return list(jobs.values())


def _files(given: str, folder: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the files of an input, each with its path relative to the output folder."""
    if Path(given).exists():
        paths = [Path(given)]
    else:
        paths = [Path(each) for each in sorted(glob.glob(given, recursive=True))]
    if not paths:
        raise DataError(f"{given}: no such file or folder")
    output = folder.resolve()
    for path in paths:
        if not path.is_dir():
            yield path, Path(path.name)
        elif path.resolve() == output:
            raise DataError(f"{path}: would be overwritten; choose another folder with -o")
        else:
            for file in list_images(path, SUFFIXES | VIDEO_SUFFIXES):
                if not file.resolve().is_relative_to(output):
                    yield file, file.relative_to(path)


def _output_name(name: Path) -> Path:
    """Return `name`, or its .mp4 version for video formats that cannot be written."""
    suffix = name.suffix.lower()
    if suffix in VIDEO_SUFFIXES and suffix not in WRITTEN_SUFFIXES:
        return name.with_suffix(".mp4")
    return name


class Records:
    """Log of the files that were restored into a folder: one JSON line each in `.restored.jsonl`.

    A line is written just before its file appears, and holds the file's size. This identifies every
    file that this command wrote: others, and files that were changed since, are never overwritten.

    Args:
        folder: folder of the restored files.
        settings: options that the restored images depend on (weights, precision).
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings = settings
        self.file = folder / RECORDS
        self._lines = list(_json_lines(self.file))

    def has(self, job: RestoreJob) -> bool:
        """Return whether the job was done with these settings and an unchanged source.

        Raises DataError if the target is a file that this command did not write.
        """
        if not job.target.exists():
            return False
        name, size = self._name(job), job.target.stat().st_size
        written = [line for line in self._lines if (line["file"], line["bytes"]) == (name, size)]
        if not written:
            raise DataError(
                f"{job.target}: is in the way; it was not written by this command, or was changed "
                "since; move it, or choose another folder with -o"
            )
        return written[-1] == self._line(job, size)

    def add(self, job: RestoreJob, size: int) -> None:
        """Record a job; call this just before its target, of `size` bytes, appears."""
        line = self._line(job, size)
        self._lines.append(line)
        try:
            with self.file.open("a") as file:
                # The leading newline separates this line from one that was cut off.
                file.write("\n" + json.dumps(line))
        except OSError as error:  # the error of a write does not name the file
            raise OSError(error.errno, error.strerror, str(self.file)) from error

    def _name(self, job: RestoreJob) -> str:
        return job.target.relative_to(self.folder).as_posix()

    def _line(self, job: RestoreJob, size: int) -> dict[str, Any]:
        source = job.source.stat()
        return {
            "file": self._name(job),
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
