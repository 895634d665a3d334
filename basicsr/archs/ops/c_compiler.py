"""Compilation of C for this processor."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from basicsr.utils.errors import DataError
from basicsr.utils.files import atomic_write, cache_folder, is_own

logger = logging.getLogger(__name__)

FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fPIC", "-fopenmp")


def compiled_library(source: str) -> ctypes.CDLL | None:
    """Compile the C file `source` of this folder, or log why not and return None.

    The library is cached for the user, under a hash of its source, of the headers of this folder
    and of the compiler's macros for this processor.
    """
    code = Path(__file__).with_name(source)
    try:
        target = _cc(*FLAGS, "-dM", "-E", "-x", "c", os.devnull)
        texts = [path.read_bytes() for path in (code, *sorted(code.parent.glob("*.h")))]
        key = hashlib.sha256(b"".join([repr(FLAGS).encode(), target, *texts])).hexdigest()[:16]
        library = cache_folder() / f"{code.stem}-{key}.so"
        if not is_own(library):
            _build(code, library)
        return ctypes.CDLL(str(library))
    except subprocess.CalledProcessError as error:
        messages = error.stderr.decode(errors="replace").splitlines()
        reason = next((line for line in messages if "error" in line), str(error))
    except (OSError, RuntimeError, ValueError, DataError) as error:
        # no compiler, no home, bad quotes in CC, a cache folder of another user
        reason = str(error)
    logger.info("%s is not compiled, and PyTorch computes it more slowly: %s", source, reason)
    return None


def _cc(*arguments: str | Path) -> bytes:
    command = [*shlex.split(os.environ.get("CC") or "cc"), *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout


def _build(code: Path, library: Path) -> None:
    """Compile and link, without an OpenMP library.

    The process has PyTorch's own already. With a second one, two pools of threads would compete.
    """
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        unlinked, made = Path(folder, "unlinked.o"), Path(folder, "made.so")
        _cc(*FLAGS, "-c", code, "-o", unlinked)
        _cc("-shared", unlinked, "-o", made)
        with atomic_write(library) as file:
            file.write(made.read_bytes())
