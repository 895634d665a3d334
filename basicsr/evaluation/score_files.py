"""Result files of a test: per-image scores, their means, and the provenance."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel

from basicsr.evaluation.evaluate import ImageScores
from basicsr.metrics import Scores, flag_remarks, get_protocol, metric_label
from basicsr.utils.files import atomic_write


class MetricFacts(BaseModel):
    """Facts about a metric, for tables; see `basicsr.metrics.Metric`."""

    name: str
    unit: str
    better: Literal["higher", "lower"]
    decimals: int
    optional: bool = False

    @classmethod
    def of(cls, metric: Any) -> MetricFacts:
        """Return the facts of a metric or of its class."""
        return cls(**{name: getattr(metric, name) for name in cls.model_fields})

    @property
    def label(self) -> str:
        return metric_label(self.name)


class ProtocolFacts(BaseModel):
    """Facts about a protocol, for tables.

    scores.json has them, as the protocol's package may be missing where tables are made.
    """

    name: str
    description: str
    metrics: list[MetricFacts]
    flags: dict[str, str] = {}


class MeanScores(NamedTuple):
    """Mean scores, and sums of flags, of one data set under one protocol.

    `degraded` is empty where the network's input was not measured.
    """

    dataset: str
    protocol: str
    images: int
    degraded: Scores
    restored: Scores

    @property
    def remarks(self) -> list[str]:
        """Sentences on images that were measured in another way than the protocol describes."""
        flags = get_protocol(self.protocol).flags
        versions = {"input: ": self.degraded, "": self.restored}
        return [
            f"{self.dataset}, {self.protocol}: {version}{remark}"
            for version, scores in versions.items()
            for remark in flag_remarks(flags, scores, self.images)
        ]


ScoresByDataset = Mapping[str, Sequence[ImageScores]]
"""Scores of each image, by data set in the order of the option file."""


def summary(measured: ScoresByDataset, protocols: Sequence[str]) -> list[MeanScores]:
    """Return the mean scores of each data set under each protocol that measured it."""
    return [
        _mean(dataset, protocol, images)
        for dataset, images in measured.items()
        for protocol in protocols
        if images and protocol in images[0].restored
    ]


def _mean(dataset: str, protocol: str, images: Sequence[ImageScores]) -> MeanScores:
    summarize = get_protocol(protocol).summarize
    degraded = [image.degraded[protocol] for image in images if protocol in image.degraded]
    return MeanScores(
        dataset,
        protocol,
        len(images),
        summarize(degraded) if len(degraded) == len(images) else {},
        summarize([image.restored[protocol] for image in images]),
    )


def write_results(
    folder: Path,
    method: str,
    measured: ScoresByDataset,
    means: Sequence[MeanScores],
    provenance: Mapping[str, Any],
) -> None:
    """Write `scores.json`, `scores.csv` (per image), `scores.md` and `scores.tex` into `folder`.

    Args:
        folder: an existing folder.
        method: name of the method in tables.
        measured: scores of every image, by data set.
        means: what `summary` returns for them.
        provenance: weights, options, versions and device, for scores.json.
    """
    document = {
        "method": method,
        "protocols": {mean.protocol: protocol_facts(mean.protocol).model_dump() for mean in means},
        "results": [
            {
                "dataset": mean.dataset,
                "protocol": mean.protocol,
                "images": mean.images,
                **json_scores(mean.restored),
                **{f"input_{name}": v for name, v in json_scores(mean.degraded).items()},
            }
            for mean in means
        ],
        "provenance": dict(provenance),
    }
    _write(folder / "scores.json", json.dumps(document, indent=2) + "\n")
    _write(folder / "scores.csv", _per_image(measured))
    _write(folder / "scores.md", f"{method}\n\n{markdown(means)}\n")
    _write(folder / "scores.tex", _latex(method, means))


def protocol_facts(name: str) -> ProtocolFacts:
    """Return the facts of a registered protocol."""
    protocol = get_protocol(name)
    metrics = [MetricFacts.of(metric) for metric in protocol.metrics]
    return ProtocolFacts(
        name=protocol.name,
        description=protocol.description,
        metrics=metrics,
        flags=dict(protocol.flags),
    )


def json_scores(scores: Scores) -> dict[str, float | str]:
    """Return the scores for JSON, which has no infinity (the PSNR of identical images)."""
    return {name: v if math.isfinite(v) else str(v) for name, v in scores.items()}


def markdown(means: Sequence[MeanScores]) -> str:
    """Return a Markdown table with one line per data set and protocol, and the remarks on them."""
    headings, *lines = _table(means)
    rows = [headings, ["---"] * len(headings), *lines]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return "\n\n".join([table, *(remark for mean in means for remark in mean.remarks)])


def _table(means: Sequence[MeanScores]) -> list[list[str]]:
    """Return headings and lines; a metric that was not measured is an empty cell."""
    labels = {
        metric.name: metric.label
        for mean in means
        for metric in get_protocol(mean.protocol).metrics
        if metric.name in mean.restored
    }
    headings = ["data set", "images", "protocol", *(f"input {x}" for x in labels.values())]
    lines = [[*headings, *labels.values()]]
    for mean in means:
        cells = [
            _cell(scores, name, mean.protocol)
            for scores in (mean.degraded, mean.restored)
            for name in labels
        ]
        lines.append([mean.dataset, str(mean.images), mean.protocol, *cells])
    return lines


def _cell(scores: Scores, name: str, protocol: str) -> str:
    if name not in scores:
        return ""
    return f"{scores[name]:.{get_protocol(protocol).metric(name).decimals}f}"


def _latex(method: str, means: Sequence[MeanScores]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "  " + " & ".join(cell.replace("_", r"\_") for cell in cells) + r" \\"

    headings, *lines = _table(means)
    return "\n".join(
        [
            f"% {method}; needs the package booktabs",
            rf"\begin{{tabular}}{{lrl{'r' * (len(headings) - 3)}}}",
            r"  \toprule",
            line(headings),
            r"  \midrule",
            *map(line, lines),
            r"  \bottomrule",
            r"\end{tabular}",
            *(f"% {remark}" for mean in means for remark in mean.remarks),
            "",
        ]
    )


def _per_image(measured: ScoresByDataset) -> str:
    names = list(
        dict.fromkeys(
            name
            for images in measured.values()
            for image in images[:1]
            for scores in image.restored.values()
            for name in scores
        )
    )
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["dataset", "image", "protocol", *names, *(f"input_{n}" for n in names)])
    for dataset, images in measured.items():
        for image in images:
            for protocol, restored in image.restored.items():
                degraded = image.degraded.get(protocol, {})
                numbers = [
                    f"{scores[name]:.8f}" if name in scores else ""
                    for scores in (restored, degraded)
                    for name in names
                ]
                writer.writerow([dataset, image.name, protocol, *numbers])
    return table.getvalue()


def _write(file: Path, text: str) -> None:
    with atomic_write(file) as stream:
        stream.write(text.encode())
