"""Compiles C for the processor that it runs on."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shlex
import stat
import subprocess
import tempfile
from pathlib import Path

from basicsr.utils.files import atomic_write

logger = logging.getLogger(__name__)

FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fPIC", "-fopenmp")


def compiled(source: str) -> ctypes.CDLL | None:
    """The library of the C file `source` of this folder; None, with a message, if none can be made.

    It is kept in the user's cache, by its source and by what the compiler knows of the processor.
    """
    code = Path(__file__).with_name(source)
    try:
        target = _cc(*FLAGS, "-dM", "-E", "-x", "c", os.devnull)
        key = hashlib.sha256(repr(FLAGS).encode() + target + code.read_bytes()).hexdigest()[:16]
        library = _cache() / f"{code.stem}-{key}.so"
        if not library.exists():
            _build(code, library)
        return ctypes.CDLL(str(library))
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").splitlines()
        reason = next((line for line in said if "error" in line), str(error))
    except (OSError, RuntimeError, ValueError) as error:  # no compiler, no home, quotes in CC
        reason = str(error)
    logger.info("%s is not compiled, and PyTorch computes it more slowly: %s", source, reason)
    return None


def _cc(*arguments: str | Path) -> bytes:
    command = [*shlex.split(os.environ.get("CC") or "cc"), *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout


def _cache() -> Path:
    """The folder of compiled libraries, which nobody else may write into."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dtpnet-derain"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{folder} is somebody else's, or others may write into it")
    return folder


def _build(code: Path, library: Path) -> None:
    """Linked without an OpenMP library: PyTorch's own is in the process, and must be the only one,
    lest two crowds of threads wait for each other."""
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        unlinked, made = Path(folder, "unlinked.o"), Path(folder, "made.so")
        _cc(*FLAGS, "-c", code, "-o", unlinked)
        _cc("-shared", unlinked, "-o", made)
        with atomic_write(library) as file:
            file.write(made.read_bytes())
