"""Which file is restored to which, and the record of files that were restored before."""

from __future__ import annotations

import glob
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from basicsr.io.folders import list_folder
from basicsr.io.images import SUFFIXES, image_size
from basicsr.io.video.reading import VIDEO_SUFFIXES, WRITTEN_SUFFIXES, video_facts
from basicsr.utils.errors import DataError
from basicsr.utils.files import extended_name, open_own

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
        return self.target.with_name(extended_name(self.target.name, suffix))

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


@dataclass
class Findings:
    """What was found among the inputs beside the files to restore.

    Args:
        problems: one line for each input that cannot be restored.
        others: files of folders that are neither images nor videos.
        repeated: links to folders whose files are listed already.
    """

    problems: list[str] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    repeated: list[Path] = field(default_factory=list)


def find_jobs(
    inputs: Sequence[str], folder: Path, findings: Findings | None = None
) -> list[RestoreJob]:
    """Return a job for every photograph and video of `inputs`.

    Links to folders are followed. Hidden files are skipped, and so are files in `folder` itself.

    Args:
        inputs: files, folders (whose structure is kept), or patterns of files and folders.
        folder: folder for the restored files.
        findings: takes what else is found; without it, the first problem is raised.

    Raises:
        DataError: an input does not exist, there is nothing to restore, or (without `findings`) a
            restored file would overwrite an input or another restored file.
    """
    found = Findings() if findings is None else findings
    jobs: dict[Path, RestoreJob] = {}
    for each in inputs:
        for source, name in _files(each, folder, found):
            job = RestoreJob(source, folder / _output_name(name))
            problem = _conflict(job, jobs)
            if problem is None:
                jobs.setdefault(job.target, job)
            else:
                found.problems.append(problem)
            if findings is None and found.problems:
                raise DataError(found.problems[0])
    if found.problems and (findings is None or not jobs):
        raise DataError(found.problems[0])
    if not jobs:
        raise DataError(f"{', '.join(inputs)}: nothing to restore outside of {folder}")
    return list(jobs.values())


def _conflict(job: RestoreJob, jobs: Mapping[Path, RestoreJob]) -> str | None:
    """Return why a job cannot be done beside the others, or None."""
    other = jobs.get(job.target)
    if other is not None and not _is_same_file(job.source, other.source):
        return (
            f"{other.source} and {job.source} would both become {job.target}; "
            "restore them into two folders"
        )
    if _is_same_file(job.target, job.source):
        return f"{job.source}: would be overwritten; choose another folder with -o"
    return None


def _is_same_file(one: Path, other: Path) -> bool:
    """Return whether both paths are of one file; links that lead nowhere are compared by name."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return os.path.abspath(one) == os.path.abspath(other)


def _files(given: str, folder: Path, found: Findings) -> Iterator[tuple[Path, Path]]:
    """Yield the files of an input, each with its path relative to the output folder."""
    if os.path.lexists(given):  # also a link that leads nowhere, which is reported when it is read
        paths = [Path(given)]
    else:
        paths = [Path(each) for each in sorted(glob.glob(given, recursive=True))]
    if not paths:
        raise DataError(f"{given}: no such file or folder")
    output = os.path.realpath(folder)
    for path in paths:
        if not os.path.isdir(path):
            yield path, Path(path.name)
        elif os.path.realpath(path) == output:
            raise DataError(f"{path}: would be overwritten; choose another folder with -o")
        else:
            listing = list_folder(path, SUFFIXES | VIDEO_SUFFIXES)
            files = [file for file in listing.files if not _is_below(file, output)]
            if not (listing.files or listing.problems):
                found.problems.append(
                    f"{path}: no images in this folder"
                    f" ({', '.join(sorted(SUFFIXES | VIDEO_SUFFIXES))})"
                )
            found.problems += listing.problems
            found.others += [file for file in listing.others if not _is_below(file, output)]
            found.repeated += listing.repeated
            for file in files:
                yield file, file.relative_to(path)


def _is_below(file: Path, folder: str) -> bool:
    return Path(os.path.realpath(file)).is_relative_to(folder)


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

    Each process of a run appends to a file of its own, as lines that several machines append to one
    file may be lost; `merge` moves them all to `.restored.jsonl`.

    Args:
        folder: folder of the restored files.
        settings: options that the restored images depend on (weights, precision).
        rank: number of this process.

    Attributes:
        damaged: numbers of the lines that cannot be read, and are ignored.

    Raises:
        OSError: `.restored.jsonl` cannot be opened, or is a link, which is not followed.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], rank: int = 0) -> None:
        self.folder = folder
        self.settings = settings
        self.file = folder / (f"{RECORDS}.{rank}" if rank else RECORDS)
        self.damaged: list[int] = []
        self._lines: list[dict[str, Any]] = []
        if os.path.lexists(folder / RECORDS):
            with open_own(folder / RECORDS) as file:
                self._read(file.read())

    def merge(self) -> None:
        """Move the lines of all processes to this one's file. No other process may be writing."""
        for part in sorted(self.folder.glob(f"{RECORDS}.*")):
            known = len(self._lines)
            with open_own(part) as file:
                self._read(file.read())
            self._append(self._lines[known:])
            part.unlink()

    def has(self, job: RestoreJob) -> bool:
        """Return whether the job was done with these settings and an unchanged source.

        Raises DataError if the target is a file that this command did not write.
        """
        try:
            status = job.target.lstat()
        except FileNotFoundError:
            return False
        size = status.st_size if stat.S_ISREG(status.st_mode) else -1
        name = self._name(job)
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
        self._append([line])

    def _append(self, lines: Sequence[dict[str, Any]]) -> None:
        # Leading newlines separate a line from one that was cut off.
        text = "".join(f"\n{json.dumps(line)}" for line in lines)
        try:
            with open_own(self.file) as file:
                file.write(text.encode())
        except OSError as error:  # the error of a write does not name the file
            raise OSError(error.errno, error.strerror, str(self.file)) from error

    def _read(self, content: bytes) -> None:
        for number, text in enumerate(content.split(b"\n"), 1):
            if not text.strip():
                continue
            try:
                line = json.loads(text)
                is_record = isinstance(line["file"], str) and isinstance(line["bytes"], int)
            except (ValueError, TypeError, KeyError, RecursionError):
                is_record = False
            if is_record:
                self._lines.append(line)
            else:
                self.damaged.append(number)

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
