"""Compiles C for the processor that it runs on."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import subprocess
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fPIC", "-fopenmp")


def compiled(source: str) -> ctypes.CDLL | None:
    """The library of the C file `source` of this folder; None, with a message, if none can be made.

    It is kept in the user's cache, by its source and by what the compiler knows of the processor.
    """
    code = Path(__file__).with_name(source)
    try:
        target = _cc(*FLAGS, "-dM", "-E", "-x", "c", os.devnull)
        key = hashlib.sha256(target + code.read_bytes()).hexdigest()[:16]
        library = _cache() / f"{code.stem}-{key}.so"
        if not library.exists():
            _build(code, library)
        return ctypes.CDLL(str(library))
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().partition("\n")[0] or str(error)
    except (OSError, RuntimeError) as error:  # no compiler, no home, a full disk
        reason = str(error)
    logger.info("%s is not compiled, and PyTorch computes it more slowly: %s", source, reason)
    return None


def _cc(*arguments: str | Path) -> bytes:
    command = [os.environ.get("CC", "cc"), *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dtpnet-derain"


def _build(code: Path, library: Path) -> None:
    """Linked without an OpenMP library: PyTorch's own is in the process, and must be the only one,
    lest two crowds of threads wait for each other."""
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        unlinked, made = Path(folder, "unlinked.o"), Path(folder, "made.so")
        _cc(*FLAGS, "-c", code, "-o", unlinked)
        _cc("-shared", unlinked, "-o", made)
        made.replace(library)
