"""The project's logger: console lines beside progress bars, and a log file."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from basicsr.utils.distributed import World


class _ThroughTqdm(logging.StreamHandler):
    """Console lines that do not tear a progress bar apart.

    A scheduler keeps them in a file, whose disk may be full as well.
    """

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            tqdm.write(self.format(record), file=sys.stdout)


class _PatientFile(logging.FileHandler):
    """A log file on a disk that may be full: the console has the lines as well."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def start_logging(file: Path | None = None, world: World | None = None) -> logging.Logger:
    """The project's logger, writing to the console and, with times, to `file`.

    Of the processes of a `world` only the main one does; the others tell warnings, with their rank.
    """
    logger = logging.getLogger("basicsr")
    logger.handlers.clear()
    logger.propagate = False
    is_main = world is None or world.is_main
    logger.setLevel(logging.INFO if is_main else logging.WARNING)
    origin = "" if world is None or is_main else f"[rank {world.rank}] "
    handlers: list[logging.Handler] = [_ThroughTqdm()]
    if file is not None and is_main:
        file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(_PatientFile(file))
    form = logging.Formatter(f"%(asctime)s {origin}%(message)s", "%Y-%m-%d %H:%M:%S")
    for handler in handlers:
        handler.setFormatter(form)
        logger.addHandler(handler)
    return logger
