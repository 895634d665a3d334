"""Set training runs side by side: a picture of their curves, and a table of where they stand.

    python scripts/plot_runs.py experiments/A experiments/B --out curves.png

Reads what every run logs to metrics.jsonl, also while it is still running. Losses compare only
between runs with the same losses, validations only on the same images.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from basicsr.utils.cli import command
from basicsr.utils.errors import DataError
from basicsr.utils.files import atomic_write

# Okabe and Ito's colours, which colour-blind people can tell apart, without the pale yellow
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", ":", "-.")


class Curve(NamedTuple):
    """A metric's values and the iterations they were logged at."""

    iterations: list[int]
    values: list[float]


class Run(NamedTuple):
    """A run's name, and its curves by metric."""

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
    """The folders' names, with as many of their parents' as it takes to tell them apart."""
    depth = 1
    while len({folder.parts[-depth:] for folder in folders}) < len(folders):
        depth += 1
    return ["/".join(folder.parts[-depth:]) for folder in folders]


def read_curves(file: Path) -> dict[str, Curve]:
    """The curves of a metrics.jsonl. Raises DataError where it holds none or something else.

    A last line that is still being written is left for later.
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
            raise DataError(f"{file}: line {number} is no line of a training's metrics") from None
    if not curves:
        raise DataError(f"{file}: nothing is logged yet; the first line comes at print_freq")
    return curves


def table(runs: Sequence[Run]) -> str:
    """Where the runs stand, in Markdown."""
    scores = sorted({m for run in runs for m in run.curves if _is_score(m) and "psnr" in m})
    heads = ["run", "iterations", "last loss", *(f"best {_label(m)}" for m in scores)]
    lines = [[*heads, "images/s", "waiting for data"]]
    lines.append(["---"] * len(lines[0]))
    for run in runs:
        lines.append(
            [
                run.name,
                str(max(curve.iterations[-1] for curve in run.curves.values())),
                _number(run.last("train/loss"), ".5f"),
                *(_best(run.curves.get(metric)) for metric in scores),
                _number(run.median("time/images_per_second"), ".3g"),
                _number(run.median("time/waiting_for_data"), ".0%"),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _best(curve: Curve | None) -> str:
    if curve is None:
        return ""
    best = max(curve.values)
    return f"{best:.4f} at {curve.iterations[curve.values.index(best)]}"


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)


def _is_score(metric: str) -> bool:
    return metric.startswith("val/")


def _label(score: str) -> str:
    """ "val/matlab_y_psnr" -> "PSNR (matlab_y)"."""
    protocol, _, kind = score.removeprefix("val/").rpartition("_")
    return f"{kind.upper()} ({protocol})"


def _title(metric: str) -> str:
    if _is_score(metric):
        return f"validation {_label(metric)}" + (", dB" if metric.endswith("psnr") else "")
    return metric.removeprefix("train/").replace("_", " ")


def smoothed(values: Sequence[float], window: int) -> np.ndarray:
    """The running mean over `window` values around each; near the ends, as many on either side."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    reach = np.minimum((window - 1) // 2, np.minimum(at, at[::-1]))
    return (total[at + reach + 1] - total[at - reach]) / (2 * reach + 1)


def shown(runs: Sequence[Run]) -> list[str]:
    """The metrics to draw: validation scores, losses, learning rate.

    A loss of one term is that term, so it is drawn once.
    """
    logged = list(dict.fromkeys(metric for run in runs for metric in run.curves))
    training = [m for m in logged if m.startswith("train/")]
    others = {"train/loss", "train/learning_rate", "train/grad_norm"}
    terms = [metric for metric in training if metric not in others]
    if len(terms) == 1:
        training.remove(terms[0])
    return [*(m for m in logged if _is_score(m)), *training]


def draw(file: Path, runs: Sequence[Run], window: int) -> None:
    """A picture of all curves. Training curves are smoothed, the logged values behind them pale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    metrics = shown(runs)
    columns = min(3, len(metrics))
    height = math.ceil(len(metrics) / columns)
    figure, grid = pyplot.subplots(
        height, columns, figsize=(4.4 * columns, 3 * height), squeeze=False, layout="constrained"
    )
    looks = {run.name: _look(number) for number, run in enumerate(runs)}
    for axes, metric in zip(grid.flat, metrics, strict=False):
        for run in runs:
            if metric in run.curves:
                exact = _is_score(metric) or metric == "train/learning_rate"
                _plot(axes, run.curves[metric], looks[run.name], 1 if exact else window)
        axes.set(title=_title(metric), xlabel="iteration")
        axes.grid(alpha=0.3)
    for axes in grid.flat[len(metrics) :]:
        axes.set_axis_off()
    for name, look in looks.items():
        grid.flat[0].plot([], [], **look, label=name)
    figure.legend(loc="outside upper center", ncols=min(4, len(runs)), frameon=False)
    with atomic_write(file) as stream:
        figure.savefig(stream, format="png", dpi=120)
    pyplot.close(figure)


def _look(number: int) -> dict[str, Any]:
    """A colour and a line style of its own for each of the first 28 runs."""
    repeats, colour = divmod(number, len(COLOURS))
    return {"color": COLOURS[colour], "linestyle": STYLES[repeats % len(STYLES)]}


def _plot(axes: Any, curve: Curve, look: dict[str, Any], window: int) -> None:
    if window == 1 or len(curve.values) == 1:
        axes.plot(*curve, **look, marker="." if len(curve.values) < 40 else None)
        return
    axes.plot(*curve, **{**look, "linestyle": "-"}, linewidth=0.8, alpha=0.25)
    axes.plot(curve.iterations, smoothed(curve.values, window), **look)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="FOLDER", help="experiments/<name>")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="a PNG file")
    parser.add_argument(
        "--smooth",
        type=_odd,
        default=5,
        metavar="N",
        help="running mean of training curves over this odd number of logged values; 1 for none",
    )
    return parser


def _odd(text: str) -> int:
    if (number := int(text)) < 1 or number % 2 == 0:
        raise argparse.ArgumentTypeError("an odd number, at least 1")
    return number


if __name__ == "__main__":
    main()
