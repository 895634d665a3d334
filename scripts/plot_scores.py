"""Plot how scores are distributed over the images of a test set, and list the worst images.

    python scripts/plot_scores.py results/A results/B --dataset Rain100L --out scores.png

Reads the scores.csv that test.py writes into each folder. The figure has the distribution of one
metric (by default the first of the protocol) and the improvement of each image; the printed table
has the worst images of the first folder, with the scores of the other folders.
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

from basicsr.metrics import DEFAULT_PROTOCOL, Metric, get_score
from basicsr.utils.cli import command, script_parser
from basicsr.utils.errors import DataError
from basicsr.utils.files import atomic_write

INPUT_COLOUR = "#808080"


class Tested(NamedTuple):
    """Scores by image: of a method's restored images, and of the degraded ones if measured."""

    name: str
    restored: dict[str, float]
    degraded: dict[str, float]


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    protocol, metric = get_score(options.score)
    tested = [
        read_scores(folder, options.dataset, protocol.name, metric) for folder in options.results
    ]
    for other in tested[1:]:
        if other.restored.keys() != tested[0].restored.keys():
            raise DataError(
                f"{tested[0].name} and {other.name} were not tested on the same images of "
                f"{options.dataset}"
            )
    print(worst(tested, metric, options.worst))
    title = f"{options.dataset}, {_axis_label(metric, f'{metric.label} ({protocol.name})')}"
    draw(options.out, tested, metric, title)


def read_scores(folder: Path, dataset: str, protocol: str, metric: Metric) -> Tested:
    """Read the scores of one data set. Raises DataError if the file does not have them."""
    file = folder / "scores.csv"
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    chosen = [row for row in rows if (row["dataset"], row["protocol"]) == (dataset, protocol)]
    if not chosen or not chosen[0].get(metric.name):
        known = sorted({f"{row['dataset']} ({row['protocol']})" for row in rows})
        raise DataError(
            f"{file}: has no {metric.label} of {dataset} ({protocol}); it has {', '.join(known)}"
        )
    degraded = f"input_{metric.name}"
    return Tested(
        folder.resolve().name,
        {row["image"]: float(row[metric.name]) for row in chosen},
        {row["image"]: float(row[degraded]) for row in chosen if row.get(degraded)},
    )


def worst(tested: Sequence[Tested], metric: Metric, count: int) -> str:
    """Return the `count` worst images of the first method as a Markdown table."""
    first = tested[0]
    images = sorted(
        first.restored, key=lambda image: first.restored[image], reverse=metric.better == "lower"
    )[:count]
    columns = [("degraded", first.degraded)] if first.degraded else []
    columns += [(method.name, method.restored) for method in tested]
    lines = [["image", *(name for name, _ in columns)], ["---"] * (len(columns) + 1)]
    for image in images:
        numbers = [f"{scores[image]:.{metric.decimals}f}" for _, scores in columns]
        lines.append([image, *numbers])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(file: Path, tested: Sequence[Tested], metric: Metric, title: str) -> None:
    """Draw a PNG file: the distributions and, if the input was measured, each image's change."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    degraded = tested[0].degraded
    panels = 2 if degraded else 1
    figure, panel = pyplot.subplots(
        1, panels, figsize=(5 * panels, 4), layout="constrained", squeeze=False
    )
    distribution = panel[0][0]
    curves = [("degraded", list(degraded.values()), INPUT_COLOUR)] if degraded else []
    for colour, method in zip(itertools.cycle(COLOURS), tested, strict=False):
        curves.append((method.name, list(method.restored.values()), colour))
        if degraded:
            changes = [method.restored[image] - degraded[image] for image in degraded]
            panel[0][1].scatter(list(degraded.values()), changes, s=12, color=colour, alpha=0.7)
    for name, values, colour in curves:
        distribution.ecdf(values, label=f"{name}: {_number(metric, np.mean(values))}", color=colour)
    distribution.set(
        title=title, xlabel=_axis_label(metric, metric.label), ylabel="share of images below"
    )
    if degraded:
        change = panel[0][1]
        change.axhline(0, color=INPUT_COLOUR, linewidth=1)
        change.set(
            title="change of each image",
            xlabel=_axis_label(metric, f"{metric.label} of the degraded image"),
            ylabel=metric.unit or metric.label,
        )
    figure.legend(loc="outside upper center", ncols=len(curves), frameon=False)
    for axes in panel[0]:
        axes.grid(alpha=0.3)
    with atomic_write(file) as stream:
        figure.savefig(stream, format="png", dpi=110)
    pyplot.close(figure)


def _number(metric: Metric, value: float) -> str:
    unit = f" {metric.unit}" if metric.unit else ""
    return f"{value:.{metric.decimals}f}{unit}"


def _axis_label(metric: Metric, text: str) -> str:
    return f"{text}, {metric.unit}" if metric.unit else text


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    parser.add_argument("results", nargs="+", type=Path, metavar="FOLDER", help="results/<name>")
    parser.add_argument("--dataset", required=True, help="name of the data set in the option file")
    parser.add_argument(
        "--score",
        default=DEFAULT_PROTOCOL,
        metavar="PROTOCOL[/METRIC]",
        help="default: %(default)s",
    )
    parser.add_argument("--worst", type=int, default=5, metavar="N", help="images to list")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="a PNG file")
    return parser


if __name__ == "__main__":
    main()
