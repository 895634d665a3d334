"""Compare training runs: plot their curves and print a table of their state.

    python scripts/plot_runs.py experiments/A experiments/B --out curves.png

Reads the metrics.jsonl of each run, also while it is still training. Loss values are comparable
only between runs with the same losses, validation scores only on the same images.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from basicsr.metrics import Metric, Protocol, get_protocol, protocol_names
from basicsr.utils.cli import command, script_parser
from basicsr.utils.errors import DataError
from basicsr.utils.files import atomic_write

# Okabe and Ito's palette for colour-blind readers, without the pale yellow
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", ":", "-.")


class Curve(NamedTuple):
    """Values of a metric, and the iterations at which they were logged."""

    iterations: list[int]
    values: list[float]


class Score(NamedTuple):
    """Score of a validation set ("val", "val_2", ...)."""

    dataset: str
    protocol: Protocol
    metric: Metric

    @property
    def ranks(self) -> bool:
        """Whether this is the first metric of its protocol."""
        return self.metric is self.protocol.metrics[0]

    def __str__(self) -> str:
        dataset = "" if self.dataset == "val" else f", {self.dataset}"
        return f"{self.metric.label} ({self.protocol.name}{dataset})"


class Run(NamedTuple):
    """Name of a run, and its curves by metric."""

    name: str
    curves: Mapping[str, Curve]

    def last(self, metric: str) -> float:
        return self.curves[metric].values[-1] if metric in self.curves else math.nan

    def median(self, metric: str) -> float:
        return statistics.median(self.curves[metric].values) if metric in self.curves else math.nan


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    folders = list(dict.fromkeys(path.resolve() for path in options.runs))
    runs = [
        Run(name, read_curves(folder / "metrics.jsonl"))
        for name, folder in zip(names(folders), folders, strict=True)
    ]
    print(table(runs))
    draw(options.out, runs, options.smooth)


def names(folders: Sequence[Path]) -> list[str]:
    """Return the folders' names, with as many parents as make them unique."""
    depth = 1
    while len({folder.parts[-depth:] for folder in folders}) < len(folders):
        depth += 1
    return ["/".join(folder.parts[-depth:]) for folder in folders]


def read_curves(file: Path) -> dict[str, Curve]:
    """Return the curves of a metrics.jsonl; raise DataError if it has none or is malformed.

    An incomplete last line, which the run is still writing, is ignored.
    """
    curves: dict[str, Curve] = {}
    lines = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
            iteration = int(values.pop("iteration"))
            for metric, value in values.items():
                curve = curves.setdefault(metric, Curve([], []))
                curve.values.append(float(value))
                curve.iterations.append(iteration)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise DataError(f"{file}: line {number} does not hold a run's metrics") from None
    if not curves:
        raise DataError(f"{file}: has no metrics yet; wait for print_freq iterations")
    return curves


def table(runs: Sequence[Run]) -> str:
    """Return a Markdown table of the runs' state."""
    scores = {m: score for run in runs for m in run.curves if (score := parse_score(m))}
    ranking = {m: scores[m] for m in sorted(scores) if scores[m].ranks}
    heads = ["run", "iterations", "last loss", *(f"best {each}" for each in ranking.values())]
    lines = [[*heads, "images/s", "waiting for data"]]
    lines.append(["---"] * len(lines[0]))
    for run in runs:
        lines.append(
            [
                run.name,
                str(max(curve.iterations[-1] for curve in run.curves.values())),
                _number(run.last("train/loss"), ".5f"),
                *(_best(run.curves.get(name), score.metric) for name, score in ranking.items()),
                _number(run.median("time/images_per_second"), ".3g"),
                _number(run.median("time/waiting_for_data"), ".0%"),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _best(curve: Curve | None, metric: Metric) -> str:
    if curve is None:
        return ""
    best = max(curve.values) if metric.better == "higher" else min(curve.values)
    return f"{best:.4f} at {curve.iterations[curve.values.index(best)]}"


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)


def parse_score(name: str) -> Score | None:
    """Return the score logged as `name`, such as "val_2/matlab_y_psnr"; None for other values.

    Metrics of optional packages have no score here: creating them would load their weights.
    """
    match = re.fullmatch(r"(val(?:_\d+)?)/(.+)", name)
    if not match:
        return None
    for protocol in map(get_protocol, protocol_names()):
        for metric in protocol.metrics:
            if match[2] == f"{protocol.name}_{metric.name}":
                return Score(match[1], protocol, metric)
    return None


def _is_validation(name: str) -> bool:
    return name.startswith("val")


def _title(name: str) -> str:
    if score := parse_score(name):
        return f"validation {score}" + (f", {score.metric.unit}" if score.metric.unit else "")
    return name.removeprefix("train/").replace("_", " ")


def smoothed(values: Sequence[float], window: int) -> np.ndarray:
    """Return the centred running mean over `window` values; near the ends the window shrinks."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    radius = np.minimum((window - 1) // 2, np.minimum(at, at[::-1]))
    return (total[at + radius + 1] - total[at - radius]) / (2 * radius + 1)


def plotted_metrics(runs: Sequence[Run]) -> list[str]:
    """Return the metrics to plot: validation scores, losses, learning rate.

    The term of a loss with one term is left out, as it equals the loss.
    """
    logged = list(dict.fromkeys(metric for run in runs for metric in run.curves))
    training = [m for m in logged if m.startswith("train/")]
    others = {"train/loss", "train/learning_rate", "train/grad_norm"}
    terms = [metric for metric in training if metric not in others]
    if len(terms) == 1:
        training.remove(terms[0])
    return [*(m for m in logged if _is_validation(m)), *training]


def draw(file: Path, runs: Sequence[Run], window: int) -> None:
    """Plot all curves. Training curves are smoothed, with the logged values pale behind them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    metrics = plotted_metrics(runs)
    columns = min(3, len(metrics))
    height = math.ceil(len(metrics) / columns)
    figure, grid = pyplot.subplots(
        height, columns, figsize=(4.4 * columns, 3 * height), squeeze=False, layout="constrained"
    )
    styles = {run.name: _style(number) for number, run in enumerate(runs)}
    for axes, metric in zip(grid.flat, metrics, strict=False):
        for run in runs:
            if metric in run.curves:
                exact = _is_validation(metric) or metric == "train/learning_rate"
                _plot(axes, run.curves[metric], styles[run.name], 1 if exact else window)
        axes.set(title=_title(metric), xlabel="iteration")
        axes.grid(alpha=0.3)
    for axes in grid.flat[len(metrics) :]:
        axes.set_axis_off()
    for name, style in styles.items():
        grid.flat[0].plot([], [], **style, label=name)
    figure.legend(loc="outside upper center", ncols=min(4, len(runs)), frameon=False)
    with atomic_write(file) as stream:
        figure.savefig(stream, format="png", dpi=120)
    pyplot.close(figure)


def _style(number: int) -> dict[str, Any]:
    """Return a colour and line style that is unique among the first 28 runs."""
    repeats, colour = divmod(number, len(COLOURS))
    return {"color": COLOURS[colour], "linestyle": STYLES[repeats % len(STYLES)]}


def _plot(axes: Any, curve: Curve, style: dict[str, Any], window: int) -> None:
    if window == 1 or len(curve.values) == 1:
        axes.plot(*curve, **style, marker="." if len(curve.values) < 40 else None)
        return
    axes.plot(*curve, **{**style, "linestyle": "-"}, linewidth=0.8, alpha=0.25)
    axes.plot(curve.iterations, smoothed(curve.values, window), **style)


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="FOLDER", help="experiments/<name>")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="PNG file to write")
    parser.add_argument(
        "--smooth",
        type=_odd,
        default=5,
        metavar="N",
        help="odd window of the running mean of training curves; 1: no smoothing (default: 5)",
    )
    return parser


def _odd(text: str) -> int:
    if (number := int(text)) < 1 or number % 2 == 0:
        raise argparse.ArgumentTypeError("an odd number of at least 1")
    return number


if __name__ == "__main__":
    main()
