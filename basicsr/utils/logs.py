"""The project's logger, which writes to the console and to a log file."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from basicsr.utils.distributed import World


class _TqdmHandler(logging.StreamHandler):
    """Console handler that does not break progress bars.

    Write errors are ignored: schedulers redirect the console to a file, whose disk may be full.
    """

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            tqdm.write(self.format(record), file=sys.stdout)


class _TolerantFileHandler(logging.FileHandler):
    """File handler that ignores a full disk; the console has the same lines."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def start_logging(file: Path | None = None, world: World | None = None) -> logging.Logger:
    """Return the project's logger, set up to write to the console and to `file`.

    In a distributed run only the main process logs everything. The others write only warnings, with
    their rank, and only to the console.
    """
    logger = logging.getLogger("basicsr")
    logger.handlers.clear()
    logger.propagate = False
    is_main = world is None or world.is_main
    logger.setLevel(logging.INFO if is_main else logging.WARNING)
    origin = "" if world is None or is_main else f"[rank {world.rank}] "
    handlers: list[logging.Handler] = [_TqdmHandler()]
    if file is not None and is_main:
        file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(_TolerantFileHandler(file, encoding="utf-8", errors="backslashreplace"))
    form = logging.Formatter(f"%(asctime)s {origin}%(message)s", "%Y-%m-%d %H:%M:%S")
    for handler in handlers:
        handler.setFormatter(form)
        logger.addHandler(handler)
    return logger
