"""Exit codes, error messages and arguments shared by the entry points and the scripts.

Exit codes of every command:

- 0: success
- 1: the command ran to its end and found faults in the data
- 2: an error that the user can fix, printed as one line
- 75: stopped on request with everything saved; start it again (EX_TEMPFAIL of sysexits.h)
- 124: stalled (see `interruptions.Watchdog`)
- 130: interrupted with Ctrl-C
"""

from __future__ import annotations

import argparse
import functools
import io
import math
import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from pathlib import Path

from basicsr.utils.devices import BACKENDS, PRECISIONS, is_out_of_gpu_memory, is_out_of_memory
from basicsr.utils.errors import Stopped, UserError
from basicsr.utils.interruptions import interrupt_by_exception


def command(main: Callable[..., None]) -> Callable[..., None]:
    """Decorate the main function of a command: exit with the codes above instead of raising.

    User errors, failed file operations and lack of memory are printed to stderr as one line.
    Other exceptions are bugs and keep their stack trace.
    """

    @functools.wraps(main)
    def run(*arguments: object) -> None:
        _prepare_streams()
        try:
            interrupt_by_exception()
            main(*arguments)
        except Stopped:
            sys.exit(75)
        except UserError as error:
            _exit(str(error), 2)
        except BrokenExecutor:
            _exit("a worker process was killed, often because memory ran out; lower --workers", 2)
        except OSError as error:  # a full disk, a folder without permission
            _exit(f"{error.filename}: {error.strerror}" if error.filename else str(error), 2)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            memory = "GPU memory" if is_out_of_gpu_memory(error) else "memory"
            _exit(
                f"out of {memory}: use smaller patches or batches, accumulation_steps, "
                "activation_checkpointing or, if the device has units for it, bf16 in training; "
                "tiles in testing",
                2,
            )
        except KeyboardInterrupt:
            _exit("interrupted", 130)
        finally:
            # a loader worker that is blocked on a dead file server does not react to SIGTERM
            for child in multiprocessing.active_children():
                child.kill()

    return run


def _prepare_streams() -> None:
    """Write every line at once, and escape characters that the terminal's encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not the stream of a notebook or a test
            stream.reconfigure(line_buffering=True, errors="backslashreplace")


def _exit(message: str, code: int) -> None:
    rank = os.environ.get("RANK")
    prefix = "error" if rank is None else f"error: rank {rank}"
    print(f"{prefix}: {message}", file=sys.stderr)
    sys.exit(code)


def script_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help shows `description`, a module's docstring, as it is written."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_option_file(parser: argparse.ArgumentParser) -> None:
    """Add `-opt FILE` and `--force_yml KEY=VALUE...`."""
    parser.add_argument("-opt", required=True, metavar="FILE", help="YAML option file")
    parser.add_argument(
        "--force_yml",
        nargs="+",
        default=[],
        metavar="a:b:c=value",
        help="replace options of the file",
    )


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add BasicSR's `--launcher pytorch` and torch.distributed.launch's `--local_rank N`."""
    parser.add_argument(
        "--launcher",
        choices=("none", "pytorch", "slurm"),
        default="none",
        help="as in BasicSR; not needed, torchrun is noticed",
    )
    parser.add_argument(
        "--local_rank",
        "--local-rank",
        type=int,
        default=0,
        metavar="N",
        help="given by torch.distributed.launch; not needed",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device auto|cuda|cpu`."""
    parser.add_argument(
        "--device",
        choices=("auto", "cuda", "cpu"),
        default="auto",
        help="auto: a GPU if there is one (default: %(default)s)",
    )


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Add `--precision fp32|bf16|fp16`."""
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="of the network's convolutions and matrix products (default: %(default)s)",
    )


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Add `--backend pytorch|openvino`."""
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default="pytorch",
        help="library that computes the network; openvino on a CPU only (default: %(default)s)",
    )


def add_memory(parser: argparse.ArgumentParser, required: bool = False) -> None:
    """Add `--memory GIB`."""
    default = "" if required else " (default: 90 %% of the free memory)"
    parser.add_argument(
        "--memory",
        type=gibibytes,
        required=required,
        metavar="GIB",
        help="memory budget: resident memory of the process on a CPU, allocated tensors on a GPU"
        + default,
    )


def add_output_dir(parser: argparse.ArgumentParser, default: str) -> None:
    """Add `--output-dir FOLDER`."""
    parser.add_argument(
        "--output-dir",
        type=Path,
        default=Path(default),
        metavar="FOLDER",
        help="write to FOLDER/<name> (default: %(default)s/<name>)",
    )


def add_max_megapixels(parser: argparse.ArgumentParser) -> None:
    """Add `--max-megapixels N`."""
    parser.add_argument(
        "--max-megapixels",
        type=megapixels,
        metavar="N",
        help="refuse larger images, which may be malicious (default: DERAIN_MAX_MEGAPIXELS or 250)",
    )


def megapixels(text: str) -> float:
    """Parse a positive number of megapixels, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive number of megapixels")
    return value


def add_workers(
    parser: argparse.ArgumentParser, what: str = "processes", default: int | None = None
) -> None:
    """Add `--workers N`; one per CPU core by default."""
    parser.add_argument(
        "--workers",
        type=positive,
        default=default or os.cpu_count(),
        metavar="N",
        help=f"number of {what} (default: %(default)s)",
    )


def positive(text: str) -> int:
    """Parse an integer of at least 1, for argparse."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def gibibytes(text: str) -> float:
    """Parse a positive amount of memory in GiB, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value * 2**30 < math.inf:  # the number of bytes must be finite as well
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive number of GiB")
    return value
