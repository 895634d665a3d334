"""Print a task's tables: published results beside your own, as Markdown, CSV and LaTeX.

    python scripts/tables.py --task Deraining --table Rain100 Rain13K --out tables \\
        --measured prenet=results/PReNet_Rain100L/scores.json results/mine/scores.json

A task is a folder with a tables.yml and a published_results.csv. Only numbers of one protocol, one
test set and one way of training share a column. `prenet=` in front of a scores.json says that its
network was trained as the published rows of that name (`table` in published_results.csv); without
it, its scores stand apart, and so do those of a part of a test set. --out writes one Markdown and
one LaTeX file per table, and one CSV file per block of it.

    python scripts/tables.py --measured ... --cost cost.json \\
        --picture cost.png --block Rain100L matlab_y rain13k

plots the first metric of a block against parameters, MACs and latency, for the networks in a file
of scripts/cost.py.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from cost_picture import draw, read_costs

from basicsr.evaluation.comparison import Block, blocks
from basicsr.evaluation.entries import (
    AS_PRINTED,
    UNSTATED,
    Entry,
    measured_entries,
    published_entries,
)
from basicsr.evaluation.task import PUBLISHED_FILE, Task, find_task
from basicsr.utils.cli import command, script_parser
from basicsr.utils.errors import OptionsError
from basicsr.utils.files import atomic_write
from basicsr.utils.registry import suggest

ROOT = Path(__file__).parents[1]
DEFAULT_TASK = "Deraining"


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if bool(options.picture) != bool(options.cost and options.block):
        raise OptionsError("--picture, --cost and --block belong together")
    folder = find_task(ROOT, options.task, DEFAULT_TASK)
    task = Task.load(folder)
    names = table_names(options.table, task)
    published = published_entries(folder / PUBLISHED_FILE, task)
    entries = list(published)
    for argument in dict.fromkeys(options.measured):
        setting, file = _setting_and_file(argument, task)
        measured, notes = measured_entries(file, setting, published, task)
        entries += measured
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
    if options.picture:
        draw(options.picture, entries, read_costs(options.cost), tuple(options.block), task)
    for name in names:
        table = blocks(name, entries, task)
        print(markdown(name, table, task))
        if options.out:
            write_table(options.out, name, table, task)


def table_names(names: list[str] | None, task: Task) -> list[str]:
    """Return the tables to print, all by default. Raises OptionsError for an unknown one."""
    for name in names or ():
        if name not in task.tables:
            raise OptionsError(
                f"--table {name}: there is no such table{suggest(name, task.tables)}; "
                f"known: {', '.join(task.tables)}"
            )
    return names or list(task.tables)


def _setting_and_file(argument: str, task: Task) -> tuple[str, Path]:
    """Split "FILE" or "SETTING=FILE"."""
    setting, equals, file = argument.partition("=")
    if not equals or Path(argument).exists():
        return UNSTATED, Path(argument)
    if setting not in task.settings:
        raise OptionsError(
            f"--measured {argument}: no published rows are called '{setting}'"
            f"{suggest(setting, task.settings)}; known: {', '.join(task.settings)}"
        )
    return setting, Path(file)


def score_cells(block: Block, task: Task, mark: Callable[[str, int], str]) -> list[list[str]]:
    """Return the cells of each row; `mark(text, place)` marks the best and second best."""
    columns = []
    for dataset in block.datasets:
        entries = [row.entries.get(dataset) for row in block.rows]
        for metric in block.metrics:
            column = []
            for entry, place in zip(entries, block.places(dataset, metric), strict=True):
                score = entry.scores.get(metric.name) if entry else None
                text = "" if score is None else mark(str(score), place)
                column.append(text + _unlike_count(entry, task) if entry and text else text)
            columns.append(column)
    return [list(cells) for cells in zip(*columns, strict=True)]


def _unlike_count(entry: Entry, task: Task) -> str:
    if entry.whole:
        return ""
    return f" ({entry.images} images, not {task.image_count(entry.dataset)})"


def _signs(row_measured: bool, reconstruction: bool, dagger: str, double_dagger: str) -> str:
    signs = [dagger] if row_measured else []
    signs += [double_dagger] if reconstruction else []
    return "".join(f" {sign}" for sign in signs)


def legend(best: str, second: str, measured: str, reconstructed: str) -> str:
    return (
        f"{best} and {second} of a column are marked where its rows compare, to the decimals that "
        f"all of them have; equal numbers share a mark. {measured}: measured here. "
        f"{reconstructed}: a reconstruction from a description, not the authors' network."
    )


def markdown(name: str, table: Sequence[Block], task: Task) -> str:
    parts = [f"# {name}", legend("**Best**", "<u>second best</u>", "†", "‡")]
    protocol = None
    for block in table:
        if block.protocol.name != protocol:
            protocol = block.protocol.name
            parts += _markdown_protocol(block)
        parts += [f"### {block.title}", _markdown_block(block, task)]
    return "\n\n".join(parts) + "\n"


def _markdown_protocol(block: Block) -> list[str]:
    name, description = block.protocol.name, block.protocol.description
    if name == AS_PRINTED:
        return ["## As printed, protocols unlike", *([description] if description else [])]
    return [f"## Protocol `{name}`", f"{description}."]


def _markdown_block(block: Block, task: Task) -> str:
    def mark(text: str, place: int) -> str:
        return {0: text, 1: f"**{text}**", 2: f"<u>{text}</u>"}[place]

    heads = ["method"]
    for dataset in block.datasets:
        labels = [f"{dataset} {metric.label}" for metric in block.metrics]
        if block.whole:
            labels[0] += f" ({task.image_count(dataset)} images)"
        heads += labels
    lines = [[*heads, "source"], ["---"] * (len(heads) + 1)]
    for row, scores in zip(block.rows, score_cells(block, task, mark), strict=True):
        signs = _signs(row.measured, row.reconstruction, "†", "‡")
        lines.append([row.method + signs, *scores, row.source])
    return "\n".join(_markdown_line(line) for line in lines)


def _markdown_line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def latex(name: str, table: Sequence[Block], task: Task) -> str:
    """Return one table environment per block, whose caption says what it compares."""
    marks = legend(r"\textbf{Best}", r"\underline{second best}", r"$\dagger$", r"$\ddagger$")
    parts = [f"% {name}; needs the package booktabs"]
    for block in table:
        parts += [
            r"\begin{table}",
            rf"  \caption{{{escaped(_latex_caption(name, block))} {marks}}}",
            _latex_tabular(block, task),
            r"\end{table}",
        ]
    return "\n".join(parts) + "\n"


def _latex_caption(name: str, block: Block) -> str:
    protocol, description = block.protocol.name, block.protocol.description
    if protocol == AS_PRINTED:
        return f"{name}, as printed, protocols unlike. {description}"
    return f"{name}, protocol {protocol}: {description}. Rows {block.title}."


def _latex_tabular(block: Block, task: Task) -> str:
    def mark(text: str, place: int) -> str:
        return {0: text, 1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}"}[place]

    def line(cells: Iterable[str]) -> str:
        return "    " + " & ".join(cells) + r" \\"

    width = len(block.metrics)
    groups, rules = [], []
    for i, dataset in enumerate(block.datasets):
        images = f" ({task.image_count(dataset)} images)" if block.whole else ""
        groups.append(rf"\multicolumn{{{width}}}{{c}}{{{escaped(dataset + images)}}}")
        rules.append(rf"\cmidrule(lr){{{width * i + 2}-{width * (i + 1) + 1}}}")
    labels = [escaped(metric.label) for metric in block.metrics]
    lines = [
        rf"  \begin{{tabular}}{{l{'r' * width * len(block.datasets)}p{{6cm}}}}",
        r"    \toprule",
        line(["", *groups, ""]),
        "    " + " ".join(rules),
        line(["Method", *labels * len(block.datasets), "Source"]),
        r"    \midrule",
    ]
    for row, scores in zip(block.rows, score_cells(block, task, mark), strict=True):
        signs = _signs(row.measured, row.reconstruction, r"$\dagger$", r"$\ddagger$")
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
    """Escape `text` for LaTeX."""
    return "".join(LATEX.get(character, character) for character in text)


def csv_text(block: Block, task: Task) -> str:
    """Return one block as CSV; a file of several would mix protocols in a column."""
    heads = ["method", "measured", "reconstruction"]
    for dataset in block.datasets:
        for metric in block.metrics:
            heads += [
                f"{dataset} {metric.label} ({block.protocol.name})",
                f"{dataset} {metric.label} place",
            ]
        heads.append(f"{dataset} images")
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*heads, "training", "source"])
    for i, row in enumerate(block.rows):
        cells = [row.method, _yes(row.measured), _yes(row.reconstruction)]
        for dataset in block.datasets:
            entry = row.entries.get(dataset)
            if entry is None:
                cells += [""] * (2 * len(block.metrics) + 1)
                continue
            for metric in block.metrics:
                score = entry.scores.get(metric.name)
                place = block.places(dataset, metric)[i]
                cells += ["" if score is None else str(score), str(place or "")]
            cells.append(str(entry.images or f"all {task.image_count(dataset)}"))
        writer.writerow([*cells, block.title, row.source])
    return stream.getvalue()


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"


def write_table(folder: Path, name: str, table: Sequence[Block], task: Task) -> None:
    """Write a table as NAME.md and NAME.tex, and its blocks as NAME.PROTOCOL.SETTING.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / f"{name}.md", markdown(name, table, task))
    _write(folder / f"{name}.tex", latex(name, table, task))
    for block in table:
        parts = [name, block.protocol.name, block.setting, *([] if block.whole else ["part"])]
        file_name = ".".join(part.replace(" ", "-").replace(":", "-") for part in parts)
        _write(folder / f"{file_name}.csv", csv_text(block, task))


def _write(file: Path, text: str) -> None:
    with atomic_write(file) as stream:
        stream.write(text.encode())


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    parser.add_argument(
        "--task", metavar="FOLDER", help=f"default: the only task, or {DEFAULT_TASK}"
    )
    parser.add_argument("--table", nargs="+", metavar="NAME", help="default: all tables")
    parser.add_argument(
        "--measured",
        nargs="+",
        default=[],
        metavar="[SETTING=]FILE",
        help="scores.json files; SETTING: a key of `settings` in tables.yml",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write the tables there too")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw this PNG file")
    parser.add_argument("--cost", type=Path, metavar="FILE", help="file of scripts/cost.py --json")
    parser.add_argument(
        "--block",
        nargs=3,
        metavar=("DATASET", "PROTOCOL", "SETTING"),
        help="block to plot, such as Rain100L matlab_y rain13k",
    )
    return parser


if __name__ == "__main__":
    main()
