"""The tables of the deraining literature, published rows beside your own, as Markdown, CSV, LaTeX.

    python scripts/tables.py --table Rain100 Rain13K --out tables \\
        --measured prenet=results/PReNet_Rain100L/scores.json results/mine/scores.json

Only numbers of one protocol, one data set and one way of training share a column. `prenet=` in
front of a scores.json says that its network was trained as the published rows of that name are
(`table` in Deraining/published_results.csv); without it, its numbers stand apart. So do those of
a part of a test set. --out writes one Markdown and one LaTeX file for each table, and one CSV file
for each block of it.

    python scripts/tables.py --measured ... --cost cost.json \\
        --picture cost.png --block Rain100L matlab_y rain13k

draws PSNR against parameters, MACs and latency, for the networks in a file of scripts/cost.py.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from basicsr.archs import ARCH_REGISTRY
from basicsr.evaluation.comparison import (
    AS_PRINTED,
    IMAGES,
    SETTINGS,
    TABLES,
    UNSTATED,
    Block,
    Entry,
    Score,
    blocks,
    is_reconstruction,
    measured_entries,
    published_entries,
)
from basicsr.metrics import get_protocol, protocol_names
from basicsr.utils.cli import command
from basicsr.utils.errors import DataError, OptionsError
from basicsr.utils.files import atomic_write
from basicsr.utils.registry import suggest

PUBLISHED = Path(__file__).parents[1] / "Deraining" / "published_results.csv"
MIXED = (
    "Rows of unlike origin that DTPNet's authors print in one table: luma numbers of more than one "
    "protocol, of networks trained on different data. They compare neither with each other nor "
    "with anything else, so none is marked."
)


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if bool(options.picture) != bool(options.cost and options.block):
        raise OptionsError("--picture, --cost and --block belong together")
    published = published_entries(PUBLISHED)
    entries = list(published)
    for wish in dict.fromkeys(options.measured):
        setting, file = _setting_and_file(wish)
        measured, notes = measured_entries(file, setting, published)
        entries += measured
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
    if options.picture:
        draw(options.picture, entries, read_costs(options.cost), *options.block)
    for name in options.table:
        table = blocks(name, entries)
        print(markdown(name, table))
        if options.out:
            write_table(options.out, name, table)


def _setting_and_file(wish: str) -> tuple[str, Path]:
    """`wish` is "FILE" or "SETTING=FILE"."""
    setting, equals, file = wish.partition("=")
    if not equals or Path(wish).exists():
        return UNSTATED, Path(wish)
    if setting not in SETTINGS:
        raise OptionsError(
            f"--measured {wish}: no published rows are called '{setting}'"
            f"{suggest(setting, SETTINGS)}; known: {', '.join(SETTINGS)}"
        )
    return setting, Path(file)


def psnr(entry: Entry) -> Score:
    return entry.psnr


def ssim(entry: Entry) -> Score:
    return entry.ssim


def score_cells(block: Block, mark: Callable[[str, int], str]) -> list[list[str]]:
    """For each row PSNR and SSIM on each data set; `mark(text, place)` shows the place."""
    columns = []
    for dataset in block.datasets:
        for score in (psnr, ssim):
            entries = [row.entries.get(dataset) for row in block.rows]
            places = block.places(dataset, score)
            columns.append(
                [
                    mark(str(score(entry)), place) + _unlike_count(entry) if entry else ""
                    for entry, place in zip(entries, places, strict=True)
                ]
            )
    return [list(cells) for cells in zip(*columns, strict=True)]


def _unlike_count(entry: Entry) -> str:
    return "" if entry.whole else f" ({entry.images} images, not {count(entry.dataset)})"


def count(dataset: str) -> str:
    return " or ".join(map(str, IMAGES[dataset]))


def legend(best: str, second: str, measured: str, reconstructed: str) -> str:
    return (
        f"{best} and {second} of a column are marked where its rows compare, to the decimals that "
        f"all of them have; equal numbers share a mark. {measured}: measured here. "
        f"{reconstructed}: a reconstruction from a description, not the authors' network."
    )


def markdown(name: str, table: Sequence[Block]) -> str:
    parts = [f"# {name}", legend("**Best**", "<u>second best</u>", "†", "‡")]
    protocol = None
    for block in table:
        if block.protocol != protocol:
            protocol = block.protocol
            parts += _markdown_protocol(protocol)
        parts += [f"### {block.title}", _markdown_block(block)]
    return "\n\n".join(parts) + "\n"


def _markdown_protocol(protocol: str) -> list[str]:
    if protocol == AS_PRINTED:
        return ["## As printed, protocols unlike", MIXED]
    return [f"## Protocol `{protocol}`", f"{get_protocol(protocol).description}."]


def _markdown_block(block: Block) -> str:
    def mark(text: str, place: int) -> str:
        return {0: text, 1: f"**{text}**", 2: f"<u>{text}</u>"}[place]

    heads = ["method"]
    for dataset in block.datasets:
        images = f" ({count(dataset)} images)" if block.whole else ""
        heads += [f"{dataset} PSNR{images}", f"{dataset} SSIM"]
    lines = [[*heads, "source"], ["---"] * (len(heads) + 1)]
    for row, scores in zip(block.rows, score_cells(block, mark), strict=True):
        signs = " †" * row.measured + " ‡" * row.reconstruction
        lines.append([row.method + signs, *scores, row.source])
    return "\n".join(
        f"| {' | '.join(c.replace('|', chr(92) + '|') for c in line)} |" for line in lines
    )


def latex(name: str, table: Sequence[Block]) -> str:
    """Each block is a table environment of its own, whose caption tells what it compares."""
    marks = legend(r"\textbf{Best}", r"\underline{second best}", r"$\dagger$", r"$\ddagger$")
    parts = [f"% {name}; needs the package booktabs"]
    for block in table:
        parts += [
            r"\begin{table}",
            rf"  \caption{{{escaped(_latex_caption(name, block))} {marks}}}",
            _latex_tabular(block),
            r"\end{table}",
        ]
    return "\n".join(parts) + "\n"


def _latex_caption(name: str, block: Block) -> str:
    if block.protocol == AS_PRINTED:
        return f"{name}, as printed, protocols unlike. {MIXED}"
    measured = f"protocol {block.protocol}: {get_protocol(block.protocol).description}"
    return f"{name}, {measured}. Rows {block.title}."


def _latex_tabular(block: Block) -> str:
    def mark(text: str, place: int) -> str:
        return {0: text, 1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}"}[place]

    def line(cells: Iterable[str]) -> str:
        return "    " + " & ".join(cells) + r" \\"

    groups, rules = [], []
    for i, dataset in enumerate(block.datasets):
        images = f" ({count(dataset)} images)" if block.whole else ""
        groups.append(rf"\multicolumn{{2}}{{c}}{{{escaped(dataset + images)}}}")
        rules.append(rf"\cmidrule(lr){{{2 * i + 2}-{2 * i + 3}}}")
    lines = [
        rf"  \begin{{tabular}}{{l{'rr' * len(block.datasets)}p{{6cm}}}}",
        r"    \toprule",
        line(["", *groups, ""]),
        "    " + " ".join(rules),
        line(["Method", *["PSNR", "SSIM"] * len(block.datasets), "Source"]),
        r"    \midrule",
    ]
    for row, scores in zip(block.rows, score_cells(block, mark), strict=True):
        signs = r" $\dagger$" * row.measured + r" $\ddagger$" * row.reconstruction
        lines.append(line([escaped(row.method) + signs, *scores, escaped(row.source)]))
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}"])


LATEX = {character: "\\" + character for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def escaped(text: str) -> str:
    """`text` as LaTeX prints it."""
    return "".join(LATEX.get(character, character) for character in text)


def csv_text(block: Block) -> str:
    """A block alone, since a CSV column has no other way to be of one kind."""
    heads = ["method", "measured", "reconstruction"]
    for dataset in block.datasets:
        kind = f"({block.protocol})"
        heads += [
            *(f"{dataset} PSNR {kind}", f"{dataset} PSNR place"),
            *(f"{dataset} SSIM {kind}", f"{dataset} SSIM place", f"{dataset} images"),
        ]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*heads, "training", "source"])
    for i, row in enumerate(block.rows):
        cells = [row.method, _yes(row.measured), _yes(row.reconstruction)]
        for dataset in block.datasets:
            entry = row.entries.get(dataset)
            if entry is None:
                cells += [""] * 5
                continue
            for score in (psnr, ssim):
                cells += [str(score(entry)), str(block.places(dataset, score)[i] or "")]
            cells.append(str(entry.images or f"all {count(dataset)}"))
        writer.writerow([*cells, block.title, row.source])
    return stream.getvalue()


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"


def write_table(folder: Path, name: str, table: Sequence[Block]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / f"{name}.md", markdown(name, table))
    _write(folder / f"{name}.tex", latex(name, table))
    for block in table:
        kind = (block.protocol, block.setting, "" if block.whole else "part")
        parts = [name, *(part.replace(" ", "-") for part in kind if part)]
        _write(folder / f"{'.'.join(parts)}.csv", csv_text(block))


def _write(file: Path, text: str) -> None:
    with atomic_write(file) as stream:
        stream.write(text.encode())


class Costs(NamedTuple):
    """A file of scripts/cost.py: what was measured, and each network's figures by name."""

    circumstances: str
    device: str
    networks: dict[str, dict[str, Any]]


def read_costs(file: Path) -> Costs:
    """Raises DataError where it is no file of scripts/cost.py."""
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
    """A row of the picture, and its network's cost."""

    method: str
    network: str
    measured: bool
    psnr: float
    cost: dict[str, Any]


def points(entries: Iterable[Entry], costs: Costs) -> list[Point]:
    """The entries whose network's cost is known.

    The cost of a reconstruction says nothing of the published network of that name, and the cost of
    a network with its default options nothing of one with others.
    """
    found = []
    for entry in entries:
        name = str(entry.network["type"]) if entry.network else entry.method
        if name not in costs.networks or name not in ARCH_REGISTRY:
            continue
        if not entry.network and is_reconstruction(name):
            continue
        if entry.network and not _has_defaults(entry.network):
            print(f"{entry.file}: not in the picture: {name} has other options", file=sys.stderr)
            continue
        found.append(
            Point(entry.method, name, entry.measured, entry.psnr.value, costs.networks[name])
        )
    return found


def _has_defaults(network: Mapping[str, Any]) -> bool:
    """Whether `network`'s options are what its registered name alone stands for."""
    defaults = {
        name: list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        for name, parameter in ARCH_REGISTRY.entry(network["type"]).parameters().items()
    }
    return all(defaults.get(key, value) == value for key, value in network.items())


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def draw(
    file: Path, entries: Sequence[Entry], costs: Costs, dataset: str, protocol: str, setting: str
) -> None:
    """PSNR against parameters, MACs and, where it was measured, latency."""
    found = points(
        (
            e
            for e in entries
            if (e.dataset, e.protocol, e.setting) == (dataset, protocol, setting)
            and e.whole
            and protocol in protocol_names()
        ),
        costs,
    )
    if not found:
        known = sorted({f"{e.dataset} {e.protocol} {e.setting}" for e in entries if _drawable(e)})
        raise OptionsError(
            f"--block {dataset} {protocol} {setting}: has no row whose network's cost is known; "
            f"blocks with rows: {', '.join(known)}"
        )
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    axes_of = {"parameters (millions)": parameters, f"GMACs at {costs.circumstances}": giga_macs}
    if any(milliseconds(point) for point in found):
        axes_of[f"latency (ms) at {costs.circumstances}\n{costs.device}"] = milliseconds
    figure, row = pyplot.subplots(
        1, len(axes_of), figsize=(4.6 * len(axes_of), 4.2), sharey=True, layout="constrained"
    )
    row[0].set_ylabel(f"PSNR (dB), {dataset}, {protocol}")
    for axes, (label, position) in zip(row, axes_of.items(), strict=True):
        axes.set(xlabel=label, xscale="log")
        axes.margins(x=0.3, y=0.15)
        axes.grid(alpha=0.3)
        _scatter(axes, [(point, x) for point in found if (x := position(point))])
    for measured in sorted({point.measured for point in found}):
        kind = "measured here" if measured else "as published"
        row[0].plot([], [], **_marker(measured, "0.3"), label=kind)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    figure.draw_without_rendering()
    for axes in row:
        _place_names(axes)
    with atomic_write(file) as stream:
        figure.savefig(stream, format="png", dpi=150)
    pyplot.close(figure)


def _drawable(entry: Entry) -> bool:
    return entry.whole and entry.protocol in protocol_names() and entry.setting in SETTINGS


def parameters(point: Point) -> float | None:
    return point.cost["parameters"] / 1e6


def giga_macs(point: Point) -> float | None:
    return point.cost["macs"] / 1e9


def milliseconds(point: Point) -> float | None:
    """None where it was not measured."""
    latency = point.cost["latency"]
    return 1000 * latency["median"] if isinstance(latency, dict) else None


def _marker(measured: bool, colour: str) -> dict[str, Any]:
    shape = {"marker": "D", "markersize": 7} if measured else {"marker": "o", "markersize": 10}
    face = colour if measured else "none"
    return {**shape, "color": colour, "markerfacecolor": face, "linestyle": "none"}


def _scatter(axes: Any, placed: Sequence[tuple[Point, float]]) -> None:
    """Points in a colour for each network, with their names, and round numbers along the axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    networks = sorted({point.network for point, _ in placed})
    for point, x in placed:
        colour = COLOURS[networks.index(point.network) % len(COLOURS)]
        axes.plot([x], [point.psnr], **_marker(point.measured, colour))
        name = axes.annotate(point.method, (x, point.psnr), (0, 8), textcoords="offset points")
        name.set(fontsize=8, in_layout=False)
    xs = [x for _, x in placed]
    digits = (1, 2, 5) if max(xs) / min(xs) > 5 else (1, 1.5, 2, 3, 4, 5, 6, 7, 8)
    axes.xaxis.set_major_locator(LogLocator(subs=digits))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _place_names(axes: Any) -> None:
    """Put each name above, below or beside its point, where it covers nothing if it can."""
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--table",
        nargs="+",
        choices=TABLES,
        default=list(TABLES),
        metavar="NAME",
        help=f"{', '.join(TABLES)}; all of them without this option",
    )
    parser.add_argument(
        "--measured",
        nargs="+",
        default=[],
        metavar="[SETTING=]FILE",
        help=f"scores.json files; SETTING: {', '.join(SETTINGS)}",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write the tables there too")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw this PNG file")
    parser.add_argument(
        "--cost", type=Path, metavar="FILE", help="what scripts/cost.py --json wrote"
    )
    parser.add_argument(
        "--block",
        nargs=3,
        metavar=("DATASET", "PROTOCOL", "SETTING"),
        help="what the picture is of, such as Rain100L matlab_y rain13k",
    )
    return parser


if __name__ == "__main__":
    main()
