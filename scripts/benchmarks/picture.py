"""Plot of benchmark.json: times beside the baseline's, and times by image size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from basicsr.utils.files import atomic_write

from .networks import BASELINE
from .tables import duration

# Okabe and Ito's palette for colour-blind readers
COLOURS = {
    "fast": "#0072B2",
    "no graphs": "#56B4E9",
    "no kernels": "#000000",
    "selective": "#009E73",
    "blocks": "#F0E442",
    "compiled": "#CC79A7",
    f"{BASELINE}, memory kept": "#E69F00",
    BASELINE: "#D55E00",
}
STYLES = ("-", "--", ":", "-.")


def draw(file: Path, document: dict[str, Any]) -> None:
    """Write the plot of `document` as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = document["networks"]
    by_size = sizes(rows)
    height = 1.2 + 0.28 * sum(len(row["variants"]) + 1 for row in rows)
    figure, axes = pyplot.subplots(
        1, 2 if by_size else 1, figsize=(11, max(4, height)), squeeze=False, layout="constrained"
    )
    _bars(axes[0, 0], rows)
    if by_size:
        _curves(axes[0, 1], by_size)
    figure.suptitle(document["provenance"]["device"])
    with atomic_write(file) as stream:
        figure.savefig(stream, format="png", dpi=120)
    pyplot.close(figure)


def sizes(rows: list[dict[str, Any]]) -> dict[tuple[str, str, str], list[tuple[float, float]]]:
    """Return (megapixels, median seconds) of inference by (network, kind, precision).

    Only entries with several image sizes are included.
    """
    points: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for row in rows:
        if row["subject"] != "inference":
            continue
        for variant in row["variants"].values():
            if "seconds" in variant:
                pixels = row["size"][0] * row["size"][1] / 1e6
                key = (row["network"], variant["kind"], variant["precision"])
                points.setdefault(key, []).append((pixels, variant["seconds"]["median"]))
    return {key: sorted(each) for key, each in points.items() if len(each) > 1}


def _bars(axes: Any, rows: list[dict[str, Any]]) -> None:
    """Draw the times with quartiles, relative to the longest of a case; the first case on top."""
    place, labels = 0, []
    for row in rows:
        height, width = row["size"]
        title = f"{row['network']} {row['subject']}\n{row['batch']} x {width} x {height}"
        labels.append((place + (len(row["variants"]) - 1) / 2, title))
        measured = [v["seconds"] for v in row["variants"].values() if "seconds" in v]
        longest = max((seconds["median"] for seconds in measured), default=1.0)
        for name, variant in row["variants"].items():
            if "seconds" in variant:
                lower, median, upper = (
                    variant["seconds"][key] / longest for key in ("lower", "median", "upper")
                )
                errors = [[median - lower], [upper - median]]
                axes.barh(place, median, xerr=errors, **_style(variant))
                ratio = row["ratios"].get(name)
                faster = f", {ratio['speed']:.2f} x as fast" if ratio else ""
                text = f" {duration(variant['seconds']['median'])}{faster}"
                axes.annotate(text, (upper, place), va="center", fontsize=8)
            place += 1
        place += 1
    for name, variant in {name: v for row in rows for name, v in row["variants"].items()}.items():
        axes.barh(0, 0, label=name, **_style(variant))
    axes.set(xlabel="time relative to the longest", xlim=(0, 1.5), xticks=[0, 0.25, 0.5, 0.75, 1])
    axes.set_yticks([at for at, _ in labels], [text for _, text in labels], fontsize=8)
    axes.invert_yaxis()
    axes.figure.legend(frameon=False, fontsize=8, ncols=6, loc="outside lower center")


def _style(variant: dict[str, Any]) -> dict[str, Any]:
    """Return the bar style: the colour is the variant's, bf16 is hatched."""
    return {
        "color": COLOURS[variant["kind"]],
        "hatch": "///" if variant["precision"] == "bf16" else None,
        "edgecolor": "white",
    }


def _curves(axes: Any, points: dict[tuple[str, str, str], list[tuple[float, float]]]) -> None:
    """Plot seconds over megapixels, both logarithmic: linear cost is a straight line."""
    networks = list(dict.fromkeys(network for network, _, _ in points))
    for (network, kind, precision), each in points.items():
        style = STYLES[networks.index(network) % len(STYLES)]
        marker = "s" if precision == "bf16" else "o"
        label = f"{network}, {kind} {precision}"
        axes.plot(*zip(*each, strict=True), style, marker=marker, color=COLOURS[kind], label=label)
    axes.set(xlabel="megapixels", ylabel="seconds", xscale="log", yscale="log")
    measured = sorted({at for each in points.values() for at, _ in each})
    axes.set_xticks(measured, [f"{at:.2g}" for at in measured])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False, fontsize=8)
