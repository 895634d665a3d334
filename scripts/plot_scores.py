"""Show how scores are spread over the images of a test set, and where they are worst.

    python scripts/plot_scores.py results/A results/B --dataset Rain100L --out scores.png

Reads the scores.csv that test.py leaves in each folder, draws the distribution of PSNR and what
each image gained, and prints the worst images of the first folder beside the others' on the same.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from plot_runs import COLOURS

from basicsr.utils.cli import command
from basicsr.utils.errors import DataError
from basicsr.utils.files import atomic_write

INPUT = "#808080"


class Tested(NamedTuple):
    """The PSNR (dB) of a method's restored images by their names, and that of the rainy ones."""

    name: str
    psnr: dict[str, float]
    rainy: dict[str, float]


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    tested = [read_scores(folder, options.dataset, options.protocol) for folder in options.results]
    for other in tested[1:]:
        if other.psnr.keys() != tested[0].psnr.keys():
            raise DataError(
                f"{tested[0].name} and {other.name} were not tested on the same images of "
                f"{options.dataset}"
            )
    print(worst(tested, options.worst))
    draw(options.out, tested, f"{options.dataset}, PSNR ({options.protocol}), dB")


def read_scores(folder: Path, dataset: str, protocol: str) -> Tested:
    """One data set under one protocol. Raises DataError where the file does not hold it."""
    file = folder / "scores.csv"
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    chosen = [row for row in rows if (row["dataset"], row["protocol"]) == (dataset, protocol)]
    if not chosen:
        known = sorted({f"{row['dataset']} ({row['protocol']})" for row in rows})
        raise DataError(f"{file}: has no {dataset} ({protocol}); it has {', '.join(known)}")
    return Tested(
        folder.resolve().name,
        {row["image"]: float(row["psnr"]) for row in chosen},
        {row["image"]: float(row["input_psnr"]) for row in chosen},
    )


def worst(tested: Sequence[Tested], count: int) -> str:
    """The `count` images with the lowest PSNR of the first method, in Markdown."""
    first = tested[0]
    images = sorted(first.psnr, key=lambda image: first.psnr[image])[:count]
    lines = [["image", "rainy", *(method.name for method in tested)]]
    lines.append(["---"] * len(lines[0]))
    for image in images:
        numbers = [first.rainy[image], *(method.psnr[image] for method in tested)]
        lines.append([image, *(f"{number:.2f}" for number in numbers)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(file: Path, tested: Sequence[Tested], title: str) -> None:
    """Left, the share of images that reach a PSNR; right, each image's gain over its rainy one."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (share, gain) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    rainy = tested[0].rainy
    before = list(rainy.values())
    share.ecdf(before, label=f"rainy: {np.mean(before):.2f} dB", color=INPUT)
    for colour, method in zip(itertools.cycle(COLOURS), tested, strict=False):
        after = list(method.psnr.values())
        share.ecdf(after, label=f"{method.name}: {np.mean(after):.2f} dB", color=colour)
        gains = [method.psnr[image] - rainy[image] for image in rainy]
        gain.scatter(before, gains, s=12, color=colour, alpha=0.7)
    gain.axhline(0, color=INPUT, linewidth=1)
    share.set(title=title, xlabel="PSNR, dB", ylabel="share of images below")
    gain.set(title="gain of each image", xlabel="PSNR of the rainy image, dB", ylabel="dB")
    figure.legend(loc="outside upper center", ncols=1 + len(tested), frameon=False)
    for axes in (share, gain):
        axes.grid(alpha=0.3)
    with atomic_write(file) as stream:
        figure.savefig(stream, format="png", dpi=110)
    pyplot.close(figure)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+", type=Path, metavar="FOLDER", help="results/<name>")
    parser.add_argument("--dataset", required=True, help="the name that test.py knew it by")
    parser.add_argument("--protocol", default="matlab_y")
    parser.add_argument("--worst", type=int, default=5, metavar="N", help="images to list")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="a PNG file")
    return parser


if __name__ == "__main__":
    main()
