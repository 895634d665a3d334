"""Web page that restores photographs:  python -m basicsr.app"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

if not __package__:  # run as a file: import the library that the file belongs to
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from basicsr.page.storage import Storage
from basicsr.page.worker import Worker, WorkerSettings
from basicsr.utils.cli import add_device, add_precision, command, gibibytes, positive
from basicsr.utils.errors import OptionsError

DEFAULT_WEIGHTS = "DTPNet-T_any-rain"
BYTES_PER_PIXEL = 8
"""Of the largest file of a photograph: four channels of 16 bits, not compressed."""


@command
def main(arguments: list[str] | None = None) -> None:
    """Serve the page until SIGINT or SIGTERM."""
    options = _parser().parse_args(arguments)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with Storage() as storage:
        os.environ.update(storage.environment())
        tempfile.tempdir = None  # TMPDIR is read again
        settings = WorkerSettings(
            storage.folder,
            options.device,
            options.precision,
            options.memory,
            options.max_megapixels,
        )
        serve(settings, storage, options, ended)


def serve(
    settings: WorkerSettings,
    storage: Storage,
    options: argparse.Namespace,
    ended: threading.Event,
) -> None:
    """Serve the page until `ended` is set.

    Raises OptionsError if gradio is not installed, or if the address is not free.
    """
    try:
        # here, as it reads the environment variables above
        from basicsr.page.layout import build_page, launch
    except ModuleNotFoundError as error:
        raise OptionsError(
            f"the page needs {error.name}; pip install gradio, or 'dtpnet-derain[app]'"
        ) from None
    from basicsr.page.examples import write_examples

    worker = Worker(settings)
    worker.start()
    page = build_page(worker, storage, DEFAULT_WEIGHTS, write_examples(storage.examples))
    limit = int(options.max_megapixels * 1e6) * BYTES_PER_PIXEL
    try:
        address = launch(page, options.host, options.port, options.root_path, limit)
        print(f"the page is at {address} (Ctrl-C ends it)", flush=True)
        ended.wait()
    finally:
        page.close(verbose=False)
        worker.stop()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m basicsr.app",
        description="Serve a web page that restores photographs. Files of its users are deleted "
        "after an hour, and at the end.",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on; the default is reached from this machine only "
        "(default: %(default)s)",
    )
    parser.add_argument("--port", type=int, default=7860, help="(default: %(default)s)")
    parser.add_argument(
        "--root-path",
        default="",
        metavar="PATH",
        help="path of the page behind a reverse proxy, for example /restore",
    )
    parser.add_argument(
        "--max-megapixels",
        type=positive,
        default=64,
        metavar="N",
        help="refuse larger photographs (default: %(default)s)",
    )
    add_device(parser)
    add_precision(parser)
    parser.add_argument(
        "--memory",
        type=gibibytes,
        metavar="GIB",
        help="memory that restoring may allocate (default: half of the free memory; on a GPU, all)",
    )
    return parser


if __name__ == "__main__":
    main()
