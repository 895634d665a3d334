"""Train a small network on synthetic degradations, test it, and show the results on a page.

    python scripts/demo.py                 # deraining, less than a minute on two cores
    python scripts/demo.py --task motion   # deblurring, two minutes; also defocus, denoise

Needs no data: the photographs are those that scikit-image installs. Runs the same commands as a
user would, with the option files options/*/TASK/demo*.yml. If this project ships weights for the
task, they restore the photographs first. The training is limited in time; on a slow or busy machine
it takes fewer iterations.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # the library that this file belongs to

from basicsr.utils.cli import command, positive, script_parser  # noqa: E402

PAGE_SECONDS = 4  # for the page, on a quiet machine
FEW_ITERATIONS = 100
LEAST_SECONDS = 15  # of training, however slow the machine


class Demo(NamedTuple):
    """Demonstration of a task.

    Attributes:
        folder: of the task, in `options/train` and `options/test`.
        degraded: caption of the degraded images.
        clean: caption of the ground truth.
        protocol: of the scores on the page, the first one of the test.
        seconds: of the whole demonstration on two cores.
        weights: name of shipped weights, or None.
    """

    folder: str
    degraded: str
    clean: str
    protocol: str
    seconds: int
    weights: str | None = None


DEMOS = {
    "derain": Demo("Deraining", "rainy", "clean", "matlab_y", 58, "DTPNet-T_any-rain"),
    "motion": Demo("Motion_Deblurring", "blurred", "sharp", "gopro", 110),
    "defocus": Demo("Defocus_Deblurring", "out of focus", "sharp", "dpdd", 110),
    "denoise": Demo("Denoising", "noisy", "clean", "gaussian", 110, "DTPNet-T_color_blind"),
}


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    demo = DEMOS[options.task]
    name = "demo" if options.task == "derain" else f"demo_{options.task}"
    started = time.monotonic()
    restored = {}
    train_file, test_file = (
        f"options/{kind}/{demo.folder}/{name}.yml" for kind in ("train", "test")
    )
    if demo.weights is not None and _shipped(demo.weights).exists():
        shipped = restore(test_file, f"{name}_shipped", _shipped(demo.weights))
        restored[f"shipped {demo.weights}"] = shipped
    else:
        run("basicsr/train.py", "-opt", train_file, "--check")
    overhead = time.monotonic() - started
    # the start of the training and the test after it will take as long once more, or somewhat more
    left = (options.seconds or demo.seconds) - 2.5 * overhead - PAGE_SECONDS
    train(train_file, max(left, LEAST_SECONDS))
    restored["trained just now"] = restore(test_file, name)
    images = Path("results", name, "photographs")
    if (ROOT / images / "lq_left").exists():
        write_mean_of_views(ROOT / images)
    run(
        "scripts/compare_page.py",
        *("--lq", f"{demo.degraded}={images / 'lq'}"),
        "--restored",
        *(f"{caption}={folder / 'photographs/restored'}" for caption, folder in restored.items()),
        *("--gt", f"{demo.clean}={images / 'gt'}"),
        *("--out", str(Path("results", name)), "--protocol", demo.protocol),
        *("--title", f"{options.task}: photographs that the network was not trained on"),
    )
    seconds = time.monotonic() - started
    print(f"\n{seconds:.0f} s, {iterations(name)} iterations; PSNR, protocol {demo.protocol}:")
    for caption, folder in restored.items():
        after = ROOT / folder / "photographs/restored"
        shown = gain(ROOT / images / "lq", after, ROOT / images / "gt", demo.protocol)
        print(f"  {demo.degraded} -> {caption}: {shown}")
    if iterations(name) < FEW_ITERATIONS:
        print("Too few iterations to learn much: this machine is slow or busy; try --seconds 300.")
    print(f"Open {ROOT}/results/{name}/index.html and drag the dividers (as one image: sheet.png).")


def train(option_file: str, seconds: float) -> None:
    """Train as an option file says, for at most `seconds`."""
    limit = f"train:time_limit={seconds:.0f}"
    run("basicsr/train.py", "-opt", option_file, "--force_yml", limit)


def restore(option_file: str, name: str, weights: Path | None = None) -> Path:
    """Test the network just trained, or shipped `weights`; return the folder of the results."""
    changes = [f"name={name}"]
    if weights is not None:
        changes += [
            f"path:pretrain_network_g={weights.relative_to(ROOT)}",
            f"network_g={json.dumps(network_of(weights))}",
        ]
    run("basicsr/test.py", "-opt", option_file, "--force_yml", *changes)
    return Path("results", name)


def network_of(weights: Path) -> dict[str, object]:
    """Return the type of the network in a file of shipped weights, and its unusual options."""
    from basicsr.archs import build_network
    from basicsr.io.checkpoints import load_weights
    from basicsr.utils.registry import options_of

    saved = load_weights(weights).network
    assert saved is not None
    default = json.loads(json.dumps(options_of(build_network({"type": saved["type"]}))))
    unusual = {name: value for name, value in saved.items() if value != default[name]}
    return {**unusual, "type": saved["type"]}


def iterations(name: str) -> int:
    """Return how many iterations the run has taken."""
    weights = (ROOT / "experiments" / name / "models").glob("net_g_[0-9]*.safetensors")
    return max(int(file.stem.rpartition("_")[2]) for file in weights)


def write_mean_of_views(images: Path) -> None:
    """Write `lq`, the images of the whole aperture: the means of `lq_left` and `lq_right`."""
    from basicsr.io.images import list_images, read_image, write_png

    for file in list_images(images / "lq_left"):
        views = [
            read_image(images / view / file.name, bit_depth="as_stored")
            for view in ("lq_left", "lq_right")
        ]
        mean = (views[0].astype(float) + views[1]) / 2
        write_png(images / "lq" / file.name, mean.round().astype(views[0].dtype))


def gain(degraded: Path, restored: Path, gt: Path, protocol: str) -> str:
    """Return the mean PSNR of two folders of images, and their difference, as text."""
    from basicsr.evaluation.restored_images import match_restored
    from basicsr.metrics import get_protocol

    measure = get_protocol(protocol)
    before, after = (
        measure.summarize([measure(*pair.read()) for pair in match_restored(folder, gt)])["psnr"]
        for folder in (degraded, restored)
    )
    return f"{before:.2f} dB -> {after:.2f} dB ({after - before:+.2f})"


def run(script: str, *arguments: str) -> None:
    """Print and run a command in the project's folder; exit with its code if it fails."""
    shown = " ".join(f"'{each}'" if " " in each else each for each in (script, *arguments))
    print(f"\n$ python {shown}", flush=True)
    done = subprocess.run([sys.executable, script, *arguments], cwd=ROOT)
    if done.returncode:
        sys.exit(done.returncode)


def _shipped(name: str) -> Path:
    return ROOT / "pretrained_models" / f"{name}.safetensors"


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    parser.add_argument("--task", choices=DEMOS, default="derain", help="default: %(default)s")
    parser.add_argument(
        "--seconds",
        type=positive,
        metavar="N",
        help="of the whole demonstration; the training takes what the other steps leave",
    )
    return parser


if __name__ == "__main__":
    main()
