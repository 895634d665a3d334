"""Published and measured scores side by side, in blocks whose numbers compare.

A block holds numbers of one protocol and one way of training; only there the best one is marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from basicsr.archs import ARCH_REGISTRY
from basicsr.evaluation.entries import AS_PRINTED, UNSTATED, Entry
from basicsr.evaluation.score_files import MetricFacts, ProtocolFacts
from basicsr.evaluation.task import Task
from basicsr.metrics import protocol_names


class MethodRow(NamedTuple):
    """Line of a block: a method and its entries by test set."""

    method: str
    measured: bool
    reconstruction: bool
    source: str
    entries: dict[str, Entry]


class Block(NamedTuple):
    """Rows of one protocol and one way of training.

    `training` describes the way of training; it is None where it is not stated. `whole` is whether
    the rows are of whole test sets.
    """

    protocol: ProtocolFacts
    setting: str
    training: str | None
    whole: bool
    datasets: list[str]
    metrics: list[MetricFacts]
    rows: list[MethodRow]

    @property
    def title(self) -> str:
        part = "" if self.whole else "not the whole test set; "
        about = ", measured here" if self.training is None else f": {self.training}"
        return f"{part}{self.setting}{about}"

    @property
    def comparable(self) -> bool:
        return self.whole and self.protocol.name != AS_PRINTED and self.training is not None

    def places(self, dataset: str, metric: MetricFacts) -> list[int]:
        """Return 1 for the best rows of a column, 2 for the second best, 0 for the others.

        Values are compared to the decimals that all of the column have; equal ones share a place.
        """
        entries = [row.entries.get(dataset) for row in self.rows]
        scores = [entry.scores.get(metric.name) if entry else None for entry in entries]
        column = [score for score in scores if score is not None]
        if not self.comparable or len(column) < 2:
            return [0] * len(scores)
        decimals = min(score.decimals for score in column)
        values = {round(score.value, decimals) for score in column}
        best = sorted(values, reverse=metric.better == "higher")[:2]
        places = {value: place for place, value in enumerate(best, 1)}
        return [places.get(round(score.value, decimals), 0) if score else 0 for score in scores]


def is_reconstruction(network: str) -> bool:
    """Return whether a network is built from a description, as no code was published."""
    return bool(ARCH_REGISTRY.entry(network).cls.reconstruction)  # type: ignore[attr-defined]


def blocks(table: str, entries: Sequence[Entry], task: Task) -> list[Block]:
    """Return the blocks of a table that have rows, by protocol."""
    grouped: dict[tuple[str, bool, str], list[Entry]] = {}
    for entry in entries:
        if task.shows(table, entry.dataset, entry.setting):
            key = (entry.protocol.name, entry.whole, entry.setting)
            grouped.setdefault(key, []).append(entry)
    registered = protocol_names()
    others = sorted({name for name, _, _ in grouped} - {*registered, AS_PRINTED})
    keys = [
        (protocol, whole, setting)
        for protocol in [*registered, *others, AS_PRINTED]
        for whole in (True, False)
        for setting in [*task.settings, UNSTATED]
    ]
    return [_block(table, grouped[key], task) for key in keys if key in grouped]


def _block(table: str, entries: Sequence[Entry], task: Task) -> Block:
    """Return a block with one row for each published method and source, and each scores.json."""
    rows: dict[tuple[str, str, Path | None], list[Entry]] = {}
    for entry in entries:
        rows.setdefault((entry.method, entry.source, entry.file), []).append(entry)
    datasets = {entry.dataset for entry in entries}
    metrics = {metric.name: metric for entry in entries for metric in entry.protocol.metrics}
    first = entries[0]
    return Block(
        first.protocol,
        first.setting,
        task.settings.get(first.setting),
        first.whole,
        [name for name in task.tables[table].datasets if name in datasets],
        [metric for name, metric in metrics.items() if any(name in e.scores for e in entries)],
        [_row(line) for line in rows.values()],
    )


def _row(entries: Sequence[Entry]) -> MethodRow:
    first = entries[0]
    return MethodRow(
        first.method,
        first.measured,
        first.network is not None and is_reconstruction(first.network["type"]),
        "; ".join([first.source, *_remarks(entries)]),
        {entry.dataset: entry for entry in entries},
    )


def _remarks(entries: Sequence[Entry]) -> list[str]:
    """Return the remarks of a row, with the test sets that they are about unless all are."""
    datasets: dict[str, list[str]] = {}
    for entry in entries:
        if entry.remark:
            datasets.setdefault(entry.remark, []).append(entry.dataset)
    return [
        remark if len(about) == len(entries) else f"{', '.join(about)}: {remark}"
        for remark, about in datasets.items()
    ]
