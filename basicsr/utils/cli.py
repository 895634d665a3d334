"""What every command of the project does with errors that a user can mend."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

import torch

from basicsr.utils.errors import UserError


def command(main: Callable[..., None]) -> Callable[..., None]:
    """Run `main`; turn user errors into lines on stderr and exit code 2, Ctrl-C into code 130."""

    @functools.wraps(main)
    def run(*arguments: object) -> None:
        try:
            main(*arguments)
        except UserError as error:
            _stop(str(error), 2)
        except OSError as error:  # a full disk, a folder without permission
            _stop(f"{error.filename}: {error.strerror}" if error.filename else str(error), 2)
        except torch.OutOfMemoryError:
            _stop(
                "out of GPU memory: use smaller patches or batches, accumulation_steps, bf16 or "
                "activation_checkpointing in training, tiles in testing",
                2,
            )
        except KeyboardInterrupt:
            _stop("interrupted", 130)

    return run


def _stop(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
