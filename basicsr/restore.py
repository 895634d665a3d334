"""Remove rain from photographs and videos:  python -m basicsr.restore INPUT... -o OUT"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

import numpy as np

from basicsr.inference.files import restore_files
from basicsr.inference.jobs import Records, find_tasks
from basicsr.inference.restorer import Restorer
from basicsr.io.images import SUFFIXES, to_levels
from basicsr.io.videos import VIDEO_SUFFIXES, has_ffmpeg
from basicsr.models.pretrained import saved_network, weights_file
from basicsr.utils.cli import add_device, add_memory, add_precision, command, gibibytes
from basicsr.utils.devices import select_device
from basicsr.utils.errors import DataError, OptionsError
from basicsr.utils.files import sha256

DEFAULT_WEIGHTS = "DTPNet-T_any-rain"


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    folder = Path(options.output)
    names_file = folder.exists() or folder.suffix.lower() in SUFFIXES | VIDEO_SUFFIXES
    if names_file and not folder.is_dir():
        raise OptionsError(f"-o {folder}: names a folder, in which files keep their names")
    weights = weights_file(options.weights)
    tasks = find_tasks(options.input, folder)
    restorer = _restorer(weights, options.device, options.precision, options.memory)
    files = f"{len(tasks)} file{'s'[: len(tasks) - 1]}"
    print(f"restoring {files} with {weights.name} on {restorer.device}", flush=True)
    if any(task.is_video for task in tasks) and not has_ffmpeg():
        print("ffmpeg is not installed: restored videos have no sound, and are larger", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    records = Records(folder, {"weights": sha256(weights), "precision": options.precision})

    outcome = restore_files(restorer, tasks, records, options.compare)

    before = f", {outcome.before} before" if outcome.before else ""
    print(f"{outcome.restored} restored to {folder}{before}")
    if outcome.failures:
        print(f"{len(outcome.failures)} could not be restored:", file=sys.stderr)
        print("\n".join(outcome.failures), file=sys.stderr)
        sys.exit(1)


def restore(
    image: np.ndarray,
    weights: str | Path = DEFAULT_WEIGHTS,
    device: str = "auto",
    precision: str = "fp32",
    memory: float | None = None,
) -> np.ndarray:
    """`image` without its rain: H x W x 3 RGB, uint8 or uint16, as it comes back.

    The arguments are those of the command; the network is loaded once and kept. Raises DataError
    for other arrays, OptionsError for other arguments, CheckpointError for weights that are missing
    or do not tell their network.
    """
    image = np.array(image)  # of what Pillow opens there would be a read-only view
    is_rgb = image.ndim == 3 and image.shape[2] == 3 and image.size
    if image.dtype not in (np.uint8, np.uint16) or not is_rgb:
        raise DataError(
            "image: H x W x 3 RGB of uint8 or uint16 is expected, not "
            f"{' x '.join(map(str, image.shape))} of {image.dtype}"
        )
    if memory is not None:
        try:
            memory = gibibytes(str(memory))
        except argparse.ArgumentTypeError as error:
            raise OptionsError(f"memory: {error}") from None
    restorer = _restorer(weights_file(str(weights)), device, precision, memory)
    return to_levels(restorer(image), image.dtype)


@functools.lru_cache(maxsize=2)
def _restorer(weights: Path, device: str, precision: str, memory: float | None) -> Restorer:
    network = saved_network(weights)[0]
    return Restorer(network, select_device(device), precision, memory_gib=memory, features="disk")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m basicsr.restore",
        description="Remove rain from photographs and videos. Formats, 16 bits, transparency, EXIF "
        "and colour profiles are kept. What an earlier call has restored is not done again.",
    )
    parser.add_argument(
        "input", nargs="+", metavar="INPUT", help="photograph, video, folder, or pattern of these"
    )
    parser.add_argument(
        "-o", dest="output", required=True, metavar="OUT", help="folder for what is restored"
    )
    parser.add_argument(
        "--weights",
        default=DEFAULT_WEIGHTS,
        metavar="NAME|FILE",
        help="shipped weights, or a .safetensors file of ours (default: %(default)s)",
    )
    add_device(parser)
    add_precision(parser)
    add_memory(parser)
    parser.add_argument(
        "--compare", action="store_true", help="write rainy and restored side by side as well"
    )
    return parser


if __name__ == "__main__":
    main()
