"""Read files of torch.save without running code, within bounds on memory."""

from __future__ import annotations

import argparse
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from basicsr.utils.errors import CheckpointError

UNPACKED = 10
"""A file may hold at most this many times its own size; torch.save does not compress."""
_SLACK = 2**24  # bytes that a file of any size may hold
_MAX_OPCODES = 2_000_000
_MAX_TUPLES = 100_000  # nested a million deep, they overflow the stack of the interpreter
_TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
_PICKLES = 5  # in a file from before PyTorch 1.6; the tensors' data follow them

# Scores and arguments that authors save beside the tensors. Reading them runs no code of theirs.
_SCALAR, _ARRAY = np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]  # constructors
_HARMLESS: list[Any] = [
    _SCALAR,
    _ARRAY,
    (_SCALAR, "numpy.core.multiarray.scalar"),  # their names in NumPy 1
    (_ARRAY, "numpy.core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    *{type(np.dtype(kind)) for kind in "?bBhHiIlLqQefdgUS"},
    argparse.Namespace,
]


def load_torch_file(path: Path) -> Any:
    """Return the content of a file of torch.save, with its tensors on the CPU.

    Raises:
        CheckpointError: The file is damaged, is no such file, holds Python objects that could run
            code, or unpacks to more than `UNPACKED` times its size.
    """
    try:
        if zipfile.is_zipfile(path):
            _check_archive(path)
        else:
            with path.open("rb") as file:
                for _ in range(_PICKLES):
                    _check_pickle(file, path)
        return _load(path)
    except (OSError, MemoryError, CheckpointError):
        raise
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error)) from None
    except Exception as error:  # the readers raise anything for damaged files
        if "TorchScript" in str(error):
            raise CheckpointError(
                f"{path}: a TorchScript program, which could run code when read, and is refused; "
                "if you trust the file, save its tensors alone: "
                "torch.save(torch.jit.load(...).state_dict(), ...)"
            ) from None
        reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise _damaged(path, reason) from None


def require_plausible_size(path: Path, size: int) -> None:
    """Raise CheckpointError if the content of a file is implausibly large, `size` bytes."""
    packed = path.stat().st_size
    if size > UNPACKED * packed + _SLACK:
        raise CheckpointError(
            f"{path}: {packed / 2**20:.1f} MiB on disk unpack to {size / 2**20:,.0f} MiB, which "
            "no file of weights does; get it from another source, or unpack it yourself"
        )


def _load(path: Path) -> Any:
    with warnings.catch_warnings(), torch.serialization.safe_globals(_HARMLESS):
        warnings.simplefilter("ignore")  # about pickle protocols; the errors say more
        return torch.load(path, map_location="cpu", weights_only=True)


def _check_archive(path: Path) -> None:
    """Check the sizes and checksums of a zip archive, which PyTorch does not check."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        require_plausible_size(path, sum(entry.file_size for entry in entries))
        for entry in entries:
            if entry.CRC:  # zero if torch.serialization.set_crc32_options(False) wrote the file
                with archive.open(entry) as content:
                    while content.read(2**20):  # raises at the end if the checksum is wrong
                        pass
            if entry.filename.endswith("data.pkl"):
                with archive.open(entry) as content:
                    _check_pickle(content, path)


def _check_pickle(file: Any, path: Path) -> None:
    """Check that the next pickle of `file` builds no deep or endless structure."""
    tuples = 0
    for number, name in enumerate(_opcodes(file)):
        tuples += name in _TUPLES
        if tuples > _MAX_TUPLES or number > _MAX_OPCODES:
            raise _damaged(path, "it has more parts than weights have")


def _opcodes(file: BinaryIO) -> Iterator[str]:
    """Yield the names of the opcodes of the next pickle, up to the first that is damaged."""
    try:
        for opcode, _, _ in pickletools.genops(file):
            yield opcode.name
    except Exception:  # torch.load says more about it
        return


def _refusal(path: Path, message: str) -> CheckpointError:
    """Return an error for a pickle that cannot be read, or that asks for forbidden objects."""
    refused = re.search(r"GLOBAL ([\w.]+)", message)
    if refused:
        return CheckpointError(
            f"{path}: holds a Python object ({refused[1]}), which could run code when read, "
            "and is refused; if you trust the file, load it yourself and save the tensors "
            "alone: torch.save(net.state_dict(), ...)"
        )
    return CheckpointError(
        f"{path}: damaged, or no PyTorch file (or a pickle of something other than tensors, "
        "which is not read because it could run code)"
    )


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path}: damaged, or no PyTorch file ({reason[:200]}); get it again")
