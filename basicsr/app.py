"""Web page that restores photographs:  python -m basicsr.app"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import tempfile
import threading
from pathlib import Path

if not __package__:  # run as a file: import the library that the file belongs to
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from basicsr.io.opening import set_max_megapixels
from basicsr.page.messages import WorkerSettings
from basicsr.page.storage import Storage
from basicsr.page.worker import Worker
from basicsr.utils.cli import add_device, add_precision, command, gibibytes, positive
from basicsr.utils.errors import OptionsError

BYTES_PER_PIXEL = 8
"""Of the largest file of a photograph: four channels of 16 bits, not compressed."""


@command
def main(arguments: list[str] | None = None) -> None:
    """Serve the page until SIGINT or SIGTERM."""
    options = _parser().parse_args(arguments)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    port = free_port(options.host, options.port)
    with Storage() as storage:
        os.environ.update(storage.environment())
        tempfile.tempdir = None  # TMPDIR is read again
        set_max_megapixels(options.max_megapixels)
        settings = WorkerSettings(storage.folder, options.device, options.precision, options.memory)
        try:
            # here, as gradio reads the environment
            from basicsr.page.layout import build_page, launch
        except ModuleNotFoundError as error:
            raise OptionsError(
                f"the page needs {error.name}; pip install gradio, or 'dtpnet-derain[app]'"
            ) from None
        from basicsr.page.examples import write_examples

        with Worker(settings) as worker:
            examples = write_examples(storage.examples)
            page = build_page(worker, storage, examples)
            file_bytes = options.max_megapixels * 1_000_000 * BYTES_PER_PIXEL
            address = launch(page, options.host, port, options.root_path, file_bytes)
            print(f"the page is at {address} (Ctrl-C ends it)", flush=True)
            ended.wait()
            page.close(verbose=False)


def free_port(host: str, port: int) -> int:
    """Return `port`, or any free one for 0. Raises OptionsError if it cannot be listened on."""
    try:
        with socket.create_server((host, port), family=_family(host)) as server:
            return server.getsockname()[1]
    except (OSError, OverflowError) as error:
        errno = getattr(error, "errno", None)
        reason = os.strerror(errno) if errno and errno > 0 else error
        raise OptionsError(
            f"--host {host} --port {port}: cannot be listened on ({reason}); choose others"
        ) from None


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="derain-app" if Path(sys.argv[0]).name == "derain-app" else "python -m basicsr.app",
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
    parser.add_argument(
        "--port",
        type=int,
        default=7860,
        help="port to listen on; 0 for any free one (default: %(default)s)",
    )
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
