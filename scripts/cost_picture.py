"""Plot the first metric of a block against parameters, MACs and latency, for tables.py."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from basicsr.archs import ARCH_REGISTRY
from basicsr.evaluation.comparison import is_reconstruction
from basicsr.evaluation.entries import AS_PRINTED, Entry
from basicsr.evaluation.score_files import MetricFacts
from basicsr.evaluation.task import Task
from basicsr.utils.errors import DataError, OptionsError
from basicsr.utils.files import atomic_write

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


class Costs(NamedTuple):
    """Content of a file of scripts/cost.py: input size and precision, device, and networks."""

    conditions: str
    device: str
    networks: dict[str, dict[str, Any]]


def read_costs(file: Path) -> Costs:
    """Read a file of scripts/cost.py. Raises DataError if it is not one."""
    try:
        document = json.loads(file.read_text())
        height, width = document["size"]
        networks = {each["network"]: each for each in document["networks"]}
        for each in networks.values():
            float(each["parameters"]), float(each["macs"]), each["latency"]
        device = str(document["provenance"]["device"])
        return Costs(f"{width} x {height}, {document['precision']}", device, networks)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file}: is no file of scripts/cost.py ({type(error).__name__}: {error})"
        ) from None


class Point(NamedTuple):
    """Score of a row, and the cost of its network."""

    method: str
    network: str
    measured: bool
    score: float
    cost: dict[str, Any]


def points(entries: Iterable[Entry], metric: MetricFacts, costs: Costs) -> list[Point]:
    """Return the entries whose network's cost is known.

    The cost of a reconstruction is not that of the published network of the same name, and the
    cost of a network with default options not that of one with others.
    """
    found = []
    for entry in entries:
        name = str(entry.network["type"]) if entry.network else entry.method
        if name not in costs.networks or name not in ARCH_REGISTRY:
            continue
        if metric.name not in entry.scores or (not entry.network and is_reconstruction(name)):
            continue
        if entry.network and not _has_defaults(entry.network):
            print(f"{entry.file}: not in the picture: {name} has other options", file=sys.stderr)
            continue
        score = entry.scores[metric.name].value
        found.append(Point(entry.method, name, entry.measured, score, costs.networks[name]))
    return found


def _has_defaults(network: Mapping[str, Any]) -> bool:
    """Return whether all options are the defaults of the registered name."""
    defaults = {
        name: list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        for name, parameter in ARCH_REGISTRY.entry(network["type"]).parameters().items()
    }
    return all(defaults.get(key, value) == value for key, value in network.items())


def draw(
    file: Path, entries: Sequence[Entry], costs: Costs, block: tuple[str, str, str], task: Task
) -> None:
    """Draw a block, named by (test set, protocol, setting), as a PNG file.

    Raises OptionsError if no network of the block has a known cost.
    """
    dataset, protocol, setting = block
    rows = [each for each in entries if _drawable(each, task) and _block_of(each) == block]
    metric = rows[0].protocol.metrics[0] if rows else None
    found = points(rows, metric, costs) if metric else []
    if metric is None or not found:
        known = sorted({" ".join(_block_of(each)) for each in entries if _drawable(each, task)})
        raise OptionsError(
            f"--block {dataset} {protocol} {setting}: has no row whose network's cost is known; "
            f"blocks with rows: {', '.join(known)}"
        )
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    axes_of: dict[str, Callable[[Point], float | None]] = {
        "parameters (millions)": parameters,
        f"GMACs at {costs.conditions}": giga_macs,
    }
    if any(milliseconds(point) for point in found):
        axes_of[f"latency (ms) at {costs.conditions}\n{costs.device}"] = milliseconds
    figure, row = pyplot.subplots(
        1, len(axes_of), figsize=(4.6 * len(axes_of), 4.2), sharey=True, layout="constrained"
    )
    unit = f" ({metric.unit})" if metric.unit else ""
    row[0].set_ylabel(f"{metric.label}{unit}, {dataset}, {protocol}")
    for axes, (label, position) in zip(row, axes_of.items(), strict=True):
        axes.set(xlabel=label, xscale="log")
        axes.margins(x=0.3, y=0.15)
        axes.grid(alpha=0.3)
        _scatter(axes, [(point, x) for point in found if (x := position(point))])
    for measured in sorted({point.measured for point in found}):
        label = "measured here" if measured else "as published"
        row[0].plot([], [], **_marker(measured, "0.3"), label=label)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    figure.draw_without_rendering()
    for axes in row:
        _place_names(axes)
    with atomic_write(file) as stream:
        figure.savefig(stream, format="png", dpi=150)
    pyplot.close(figure)


def _drawable(entry: Entry, task: Task) -> bool:
    return entry.whole and entry.protocol.name != AS_PRINTED and entry.setting in task.settings


def _block_of(entry: Entry) -> tuple[str, str, str]:
    return entry.dataset, entry.protocol.name, entry.setting


def parameters(point: Point) -> float | None:
    return point.cost["parameters"] / 1e6


def giga_macs(point: Point) -> float | None:
    return point.cost["macs"] / 1e9


def milliseconds(point: Point) -> float | None:
    """Return the latency, or None where it was not measured."""
    latency = point.cost["latency"]
    return 1000 * latency["median"] if isinstance(latency, dict) else None


def _marker(measured: bool, colour: str) -> dict[str, Any]:
    shape = {"marker": "D", "markersize": 7} if measured else {"marker": "o", "markersize": 10}
    face = colour if measured else "none"
    return {**shape, "color": colour, "markerfacecolor": face, "linestyle": "none"}


def _scatter(axes: Any, placed: Sequence[tuple[Point, float]]) -> None:
    """Draw points in one colour per network, with their names, and round numbers on the axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    networks = sorted({point.network for point, _ in placed})
    for point, x in placed:
        colour = COLOURS[networks.index(point.network) % len(COLOURS)]
        axes.plot([x], [point.score], **_marker(point.measured, colour))
        name = axes.annotate(point.method, (x, point.score), (0, 8), textcoords="offset points")
        name.set(fontsize=8, in_layout=False)
    xs = [x for _, x in placed]
    digits = (1, 2, 5) if max(xs) / min(xs) > 5 else (1, 1.5, 2, 3, 4, 5, 6, 7, 8)
    axes.xaxis.set_major_locator(LogLocator(subs=digits))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _place_names(axes: Any) -> None:
    """Put each name above, below or beside its point, where it covers nothing if possible."""
    from matplotlib.transforms import Bbox

    around = axes.transData.transform([name.xy for name in axes.texts])
    taken = [Bbox.from_extents(x - 7, y - 7, x + 7, y + 7) for x, y in around]
    sides = (((0, 8), "center"), ((0, -14), "center"), ((9, -3), "left"), ((-9, -3), "right"))
    for name in axes.texts:
        for offset, align in sides:
            name.set(position=offset, ha=align)
            box = name.get_window_extent()
            if box.count_overlaps(taken) == 0:
                break
        taken.append(box)
