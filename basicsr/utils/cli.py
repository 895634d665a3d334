"""What the commands share: how they end, with exit codes and errors that a user can mend.

0: done. 2: an error, told in a line. 75: stopped on request with everything saved, to be resumed
(EX_TEMPFAIL of sysexits.h). 124: nothing happened for too long. 130: interrupted.
"""

from __future__ import annotations

import argparse
import functools
import math
import multiprocessing
import os
import sys
from collections.abc import Callable

import torch

from basicsr.utils.devices import is_out_of_memory
from basicsr.utils.errors import Stopped, UserError


def command(main: Callable[..., None]) -> Callable[..., None]:
    """Run `main`; turn user errors into lines on stderr and exit code 2, Ctrl-C into code 130."""

    @functools.wraps(main)
    def run(*arguments: object) -> None:
        try:
            main(*arguments)
        except Stopped:
            sys.exit(75)
        except UserError as error:
            _stop(str(error), 2)
        except OSError as error:  # a full disk, a folder without permission
            _stop(f"{error.filename}: {error.strerror}" if error.filename else str(error), 2)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            memory = "GPU memory" if isinstance(error, torch.OutOfMemoryError) else "memory"
            _stop(
                f"out of {memory}: use smaller patches or batches, accumulation_steps, bf16 or "
                "activation_checkpointing in training, tiles in testing",
                2,
            )
        except KeyboardInterrupt:
            _stop("interrupted", 130)
        finally:  # a loader worker that waits for a dead file server does not hear SIGTERM
            for child in multiprocessing.active_children():
                child.kill()

    return run


def gibibytes(text: str) -> float:
    """An amount of memory, for argparse; its bytes are finite too."""
    try:
        if 0 < 2**30 * (value := float(text)) < math.inf:
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"'{text}' is no number of GiB above 0")


def _stop(message: str, code: int) -> None:
    rank = os.environ.get("RANK")
    print(
        f"error: {message}" if rank is None else f"error: rank {rank}: {message}", file=sys.stderr
    )
    sys.exit(code)
