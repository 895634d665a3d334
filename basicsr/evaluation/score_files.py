"""What a test leaves to read: per-image scores, their means, and how they were obtained."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from basicsr.evaluation.evaluate import ImageScores, mean_scores
from basicsr.metrics import Scores
from basicsr.utils.files import atomic_write


class Row(NamedTuple):
    """The mean scores of one data set under one protocol."""

    dataset: str
    protocol: str
    images: int
    degraded: Scores
    restored: Scores


Measured = Mapping[str, Sequence[ImageScores]]  # by data set, in the option file's order

HEADINGS = ("data set", "images", "protocol", "input PSNR", "input SSIM", "PSNR", "SSIM")


def summary(measured: Measured, protocols: Sequence[str]) -> list[Row]:
    """One row for each data set that has clean images, and each protocol."""
    return [
        Row(
            dataset,
            protocol,
            len(images),
            mean_scores([image.degraded[protocol] for image in images]),
            mean_scores([image.restored[protocol] for image in images]),
        )
        for dataset, images in measured.items()
        if images
        for protocol in protocols
    ]


def write_results(
    folder: Path,
    method: str,
    measured: Measured,
    rows: Sequence[Row],
    provenance: Mapping[str, Any],
) -> None:
    """Write `scores.json`, `scores.csv` (per image), `scores.md` and `scores.tex` into `folder`."""
    results = [
        {
            "dataset": row.dataset,
            "protocol": row.protocol,
            "images": row.images,
            "psnr": _number(row.restored.psnr),
            "ssim": row.restored.ssim,
            "input_psnr": _number(row.degraded.psnr),
            "input_ssim": row.degraded.ssim,
        }
        for row in rows
    ]
    document = {"method": method, "results": results, "provenance": dict(provenance)}
    _write(folder / "scores.json", json.dumps(document, indent=2) + "\n")
    _write(folder / "scores.csv", _per_image(measured))
    _write(folder / "scores.md", f"{method}\n\n{markdown(rows)}\n")
    _write(folder / "scores.tex", _latex(method, rows))


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [HEADINGS, tuple("---" for _ in HEADINGS), *map(_cells, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cells(row: Row) -> tuple[str, ...]:
    scores = [*row.degraded, *row.restored]
    numbers = [f"{score:.{2 if i % 2 == 0 else 4}f}" for i, score in enumerate(scores)]
    return (row.dataset, str(row.images), row.protocol, *numbers)


def _latex(method: str, rows: Sequence[Row]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "  " + " & ".join(cell.replace("_", r"\_") for cell in cells) + r" \\"

    return "\n".join(
        [
            f"% {method}; needs the package booktabs",
            r"\begin{tabular}{lrlrrrr}",
            r"  \toprule",
            line(HEADINGS),
            r"  \midrule",
            *(line(_cells(row)) for row in rows),
            r"  \bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _per_image(measured: Measured) -> str:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["dataset", "image", "protocol", "psnr", "ssim", "input_psnr", "input_ssim"])
    for dataset, images in measured.items():
        for image in images:
            for protocol, scores in image.restored.items():
                numbers = [*scores, *image.degraded[protocol]]
                writer.writerow([dataset, image.name, protocol, *(f"{n:.8f}" for n in numbers)])
    return table.getvalue()


def _number(value: float) -> float | str:
    """JSON knows no infinity (two identical images)."""
    return value if math.isfinite(value) else "inf"


def _write(file: Path, text: str) -> None:
    with atomic_write(file) as stream:
        stream.write(text.encode())
