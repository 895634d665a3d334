"""Restore photographs and videos:  python -m basicsr.restore INPUT... -o OUT"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a file: import the library that the file belongs to
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from basicsr.utils.interruptions import exit_on_signals

if __name__ == "__main__":
    exit_on_signals()  # before the other imports, which take seconds

import numpy as np

from basicsr.inference.jobs import Findings, Records, RestoreJob, find_jobs
from basicsr.inference.notes import notes, printable
from basicsr.inference.tasks import TASKS, shipped_for
from basicsr.io.images import SUFFIXES, to_levels
from basicsr.io.opening import set_max_megapixels
from basicsr.io.video.reading import VIDEO_SUFFIXES
from basicsr.utils.cli import (
    add_backend,
    add_device,
    add_max_megapixels,
    add_memory,
    add_precision,
    command,
    gibibytes,
)
from basicsr.utils.devices import select_device
from basicsr.utils.errors import DataError, OptionsError
from basicsr.utils.files import sha256
from basicsr.utils.team import Team

if TYPE_CHECKING:
    from basicsr.inference.restorer import Restorer

DEFAULT_TASK = "derain"
DEFAULT_WEIGHTS = TASKS[DEFAULT_TASK].rgb or ""


@command
def main(arguments: list[str] | None = None) -> None:
    """Restore the files named on the command line."""
    exit_on_signals(interrupts=False)  # as a command of the installed package, only now
    options = _parser().parse_args(arguments)
    if options.sigma is not None:
        raise OptionsError(
            "--sigma: no network here is given the level of the noise; the shipped denoisers find "
            "it out, and weights for one level are chosen by --weights"
        )
    folder = Path(options.output)
    _require_folder(folder)

    # here, so that --help and mistakes do not wait for PyTorch
    from basicsr.inference.files import ByChannels, joined, restore_files

    set_max_megapixels(options.max_megapixels)
    team = Team.of_torchrun()
    weights = _weights_files(options)
    findings = Findings()
    jobs = find_jobs(options.input, folder, findings) if team.is_main else []
    restorers = [
        _restorer(
            file, options.type, options.device, options.precision, options.memory, options.backend
        )
        for file in weights
    ]
    restorer = restorers[0] if len(restorers) == 1 else ByChannels(*restorers)
    if team.is_main:
        files = "1 file" if len(jobs) == 1 else f"{len(jobs)} files"
        names = " and ".join(file.name for file in weights)
        sharing = f", {team.size} processes" if team.size > 1 else ""
        print(f"restoring {files} with {names} on {restorers[0].device}{sharing}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "weights": "+".join(map(sha256, weights)),
        "precision": restorers[0].settings.precision,
    }
    if options.backend != "pytorch":
        facts["backend"] = options.backend
    if options.type is not None:  # the same weights may suit several types
        facts["type"] = options.type
    jobs, records = _shared(team, jobs, folder, facts)

    outcome = joined(team, restore_files(restorer, jobs, records, options.compare, team))
    if not team.is_main:
        return
    records.merge()
    before = f", {outcome.before} before" if outcome.before else ""
    print(f"{outcome.restored} restored to {folder}{before}")
    for line in notes(outcome, findings, records):
        print(line)
    failures = [*findings.problems, *outcome.failures]
    if failures:
        print(f"{len(failures)} could not be restored:", file=sys.stderr)
        print("\n".join(map(printable, failures)), file=sys.stderr)
        sys.exit(1)


def _shared(
    team: Team, jobs: list[RestoreJob], folder: Path, facts: dict[str, str]
) -> tuple[list[RestoreJob], Records]:
    """Return the jobs that the main process has found, and the records of this process.

    Raises OptionsError if `facts`, about the weights and options, differ from those of the main
    process.
    """
    if team.is_main:
        Records(folder, facts).merge()  # what processes of a killed run have restored
    pairs = team.from_main("jobs", [list(map(str, job)) for job in jobs])
    if team.from_main("facts", facts) != facts:
        raise OptionsError(
            f"--weights: rank {team.rank} has other weights or options than rank 0, or computes "
            "in another precision; give all machines the same ones"
        )
    jobs = [RestoreJob(Path(source), Path(target)) for source, target in pairs]
    return jobs, Records(folder, facts, team.rank)


def restore(
    image: np.ndarray,
    weights: str | Path = DEFAULT_WEIGHTS,
    device: str = "auto",
    precision: str = "fp32",
    memory: float | None = None,
    type: str | None = None,
    backend: str = "pytorch",
) -> np.ndarray:
    """Restore one image. The network is loaded once, and kept for later calls.

    Args:
        image: H x W x 3 RGB or H x W x 1 gray, uint8 or uint16.
        weights: name of shipped weights; a file of weights; or the name or folder of a run.
        device: "auto" (a GPU if there is one), "cuda" or "cpu".
        precision: "fp32", or "bf16" or "fp16"; float32, with a warning, if the device has no units
            for it.
        memory: memory budget in GiB; by default 90 % of the free memory.
        type: name of the network, for weights as its authors published them.
        backend: "pytorch", or "openvino" to compute the network with OpenVINO on a CPU.

    Returns:
        The restored image, with the shape and type of `image`.

    Raises:
        DataError: `image` is another kind of array.
        OptionsError: another argument is invalid.
        CheckpointError: the weights are missing, or their network is not known.
    """
    from basicsr.inference.files import restore_photograph
    from basicsr.models.pretrained import weights_file

    image = np.array(image)  # a copy, because np.asarray of a Pillow image is read-only
    is_photograph = image.ndim == 3 and image.shape[2] in (1, 3) and image.size
    if image.dtype not in (np.uint8, np.uint16) or not is_photograph:
        shape = " x ".join(map(str, image.shape))
        raise DataError(
            "image: H x W x 3 RGB or H x W x 1 gray of uint8 or uint16 is expected, "
            f"not {shape} of {image.dtype}"
        )
    if memory is not None:
        try:
            memory = gibibytes(str(memory))
        except argparse.ArgumentTypeError as error:
            raise OptionsError(f"memory: {error}") from None
    restorer = _restorer(weights_file(str(weights)), type, device, precision, memory, backend)
    return to_levels(restore_photograph(restorer, image), image.dtype)


def _weights_files(options: argparse.Namespace) -> list[Path]:
    """Return the file of weights, or those of a task for RGB and for gray images."""
    from basicsr.models.pretrained import shipped_weights, weights_file

    if options.weights is not None:
        return [weights_file(options.weights)]
    shipped = shipped_weights()
    return [shipped[name] for name in shipped_for(options.task, shipped).names()]


@functools.lru_cache(maxsize=2)
def _restorer(
    weights: Path,
    type: str | None,
    device: str,
    precision: str,
    memory: float | None,
    backend: str,
) -> Restorer:
    from basicsr.inference.files import require_photographs
    from basicsr.inference.restorer import Restorer, RestorerSettings
    from basicsr.models.pretrained import saved_network

    network, _ = saved_network(weights, type)
    require_photographs(network, weights)
    if backend == "openvino" and device == "auto":
        device = "cpu"
    settings = RestorerSettings(
        precision=precision, memory_gib=memory, features="disk", backend=backend
    )
    return Restorer(network, select_device(device), settings)


def _require_folder(output: Path) -> None:
    looks_like_file = output.suffix.lower() in SUFFIXES | VIDEO_SUFFIXES
    if not output.is_dir() and (output.exists() or looks_like_file):
        raise OptionsError(f"-o {output}: must be a folder; outputs keep the names of their inputs")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="derain" if Path(sys.argv[0]).name == "derain" else "python -m basicsr.restore",
        description="Restore photographs and videos; by default, remove rain. The file format, 16 "
        "bits, transparency, EXIF and colour profiles are kept. Files that an earlier call has "
        "restored with the same weights are skipped.",
    )
    parser.add_argument(
        "input", nargs="+", metavar="INPUT", help="photograph, video, folder, or pattern of these"
    )
    parser.add_argument(
        "-o", dest="output", required=True, metavar="OUT", help="folder for the restored files"
    )
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--task",
        choices=TASKS,
        default=DEFAULT_TASK,
        help="use the shipped weights of this task, or say where its authors publish them "
        "(default: %(default)s)",
    )
    chosen.add_argument(
        "--weights",
        metavar="NAME|FILE|FOLDER",
        help="shipped weights; a file of weights; the name or folder of a training run, of which "
        "the latest are meant; or hf:OWNER/NAME on the Hugging Face hub, or a copy in a folder",
    )
    parser.add_argument(
        "--type", metavar="NETWORK",
        help="name of the network, for weights as its authors published them: Restormer, MPRNet, "
        "PReNet, ...",
    )  # fmt: skip
    # known from denoisers that need it: explained instead of "unrecognized"
    parser.add_argument("--sigma", help=argparse.SUPPRESS)
    add_device(parser)
    add_precision(parser)
    add_backend(parser)
    add_memory(parser)
    add_max_megapixels(parser)
    parser.add_argument(
        "--compare",
        action="store_true",
        help="also write each input and its restored version side by side",
    )
    return parser


if __name__ == "__main__":
    main()
