"""The folder that holds every file of the web page, and its removal."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

PREFIX = "derain-app-"
KEPT_SECONDS = 3600
"""Uploads and restored files are deleted at this age."""
_LOCK = "lock"


class Storage:
    """Context manager of a private temporary folder with all files of one running page.

    The folder is removed at the end. If the process was killed, the restoring process removes it
    (see `worker.serve`), or else the next page that starts: the folder of a running page is locked.

    `uploads` holds the files of the page's users, each for `kept_seconds`; `examples` the
    photographs that the page offers; `caches` those of libraries.
    """

    def __init__(self, kept_seconds: float = KEPT_SECONDS) -> None:
        self.kept_seconds = kept_seconds
        self._closed = threading.Event()

    def __enter__(self) -> Storage:
        parent = Path(tempfile.gettempdir())
        remove_abandoned(parent)
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))  # for this user only
        self._lock = (self.folder / _LOCK).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.uploads, self.examples, self.caches = (
            self.folder / name for name in ("uploads", "examples", "caches")
        )
        for folder in (self.uploads, self.examples, self.caches):
            folder.mkdir()
        threading.Thread(target=self._clean, name="storage", daemon=True).start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._closed.set()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def environment(self) -> dict[str, str]:
        """Return environment variables that keep libraries in the folder, and off the network."""
        return {
            "GRADIO_TEMP_DIR": str(self.uploads),
            "TMPDIR": str(self.folder),  # gradio serves files below it
            "MPLCONFIGDIR": str(self.caches),
            "HF_HOME": str(self.caches),
            "GRADIO_ANALYTICS_ENABLED": "False",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "1",
        }

    def new_folder(self) -> Path:
        """Return a new folder in `uploads`."""
        return Path(tempfile.mkdtemp(dir=self.uploads))

    def _clean(self) -> None:
        while not self._closed.wait(min(60.0, self.kept_seconds / 10)):
            remove_older(self.uploads, time.time() - self.kept_seconds)


def remove_older(folder: Path, limit: float) -> None:
    """Delete the files below `folder` that are unchanged since `limit`, in seconds of time.time().

    Folders that are empty since then are removed too.
    """
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in files:
            path = Path(parent, name)
            with suppress(OSError):
                if path.lstat().st_ctime < limit:
                    path.unlink()
        for name in folders:
            path = Path(parent, name)
            with suppress(OSError):  # not empty
                if path.lstat().st_ctime < limit:
                    path.rmdir()


def remove_abandoned(parent: Path) -> None:
    """Remove the folders in `parent` of pages of this user that do not run any more."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                continue
            with (folder / _LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
