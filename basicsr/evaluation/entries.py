"""Scores for tables: published ones from a CSV file, measured ones from scores.json files."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, PositiveInt, ValidationError

from basicsr.archs import ARCH_REGISTRY
from basicsr.evaluation.score_files import MetricFacts, ProtocolFacts, protocol_facts
from basicsr.evaluation.task import Task
from basicsr.metrics import METRIC_REGISTRY, flag_remarks, protocol_names
from basicsr.utils.errors import DataError, OptionsError
from basicsr.utils.ranges import SelfEnsemble
from basicsr.utils.registry import suggest

UNSTATED = "training data not stated"
AS_PRINTED = "as printed"
"""Protocol of published rows that their authors took over from others."""

ROW_COLUMNS = ("table", "method", "dataset", "protocol", "source")
"""Columns of a CSV file of published results; the others are metrics, and `verified`."""

VERIFIED = {"yes": "", "secondary": "second-hand", "measured": "measured for this project"}
"""Values of the column `verified`, which may be missing: whether a number was read in its source,
quoted from another source, or measured with published weights; and the remark on such numbers."""


class Score(NamedTuple):
    """Value of a metric and its number of decimals."""

    value: float
    decimals: int

    def __str__(self) -> str:
        return f"{self.value:.{self.decimals}f}"


@dataclass(frozen=True, eq=False)
class Entry:
    """Scores of one method on one test set.

    Attributes:
        method: name of the method.
        dataset: name of the test set.
        protocol: how it was measured.
        setting: way of training, a key of `Task.settings` or `UNSTATED`.
        scores: values by metric.
        source: where the scores come from.
        remark: what is special about them.
        whole: whether the whole test set was measured; assumed for published scores.
        file: the scores.json of measured scores, None for published ones.
        images: number of images of measured scores.
        network: options of the network of measured scores.
    """

    method: str
    dataset: str
    protocol: ProtocolFacts
    setting: str
    scores: Mapping[str, Score]
    source: str
    remark: str = ""
    whole: bool = True
    file: Path | None = None
    images: int | None = None
    network: Mapping[str, Any] | None = None

    @property
    def measured(self) -> bool:
        return self.file is not None


def published_entries(file: Path, task: Task) -> list[Entry]:
    """Read a CSV file of published results. Raises DataError, with the row, for a wrong one."""
    entries = []
    with file.open(newline="") as stream:
        reader = csv.DictReader(stream)
        missing = [name for name in ROW_COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{file}: has no column '{missing[0]}'")
        for row in reader:
            try:
                entries.append(_published(row, task))
            except (TypeError, ValueError, DataError, OptionsError) as error:
                line = ",".join(map(str, row.values()))
                raise DataError(f"{file}: '{line}': {error}") from None
    return entries


def _published(row: dict[str, str], task: Task) -> Entry:
    if None in row:
        raise DataError("has more cells than columns")
    name, _, remark = row["protocol"].partition(" (")
    _require(row["table"], task.settings, "table")
    _require(row["dataset"], task.images, "data set")
    printed = {
        metric: _printed(text)
        for metric, text in row.items()
        if metric not in (*ROW_COLUMNS, "verified") and text
    }
    verified = row.get("verified", "yes")
    _require(verified, VERIFIED, "value of 'verified'")
    if name == AS_PRINTED:
        protocol = as_printed(task, list(printed))
    else:
        _require(name, [*protocol_names(), AS_PRINTED], "protocol")
        protocol = protocol_facts(name)
        for metric in printed:
            _require(metric, [each.name for each in protocol.metrics], f"metric of {name}")
    return Entry(
        row["method"],
        row["dataset"],
        protocol,
        row["table"],
        printed,
        ", ".join(filter(None, [row["source"], VERIFIED[verified]])),
        remark.removesuffix(")"),
    )


def as_printed(task: Task, metrics: Sequence[str]) -> ProtocolFacts:
    """Return the protocol of rows that are taken over as they were printed."""
    facts = [MetricFacts.of(METRIC_REGISTRY.entry(name).cls) for name in metrics]
    return ProtocolFacts(name=AS_PRINTED, description=task.as_printed, metrics=facts)


def _require(name: str, known: Iterable[str], noun: str) -> None:
    if name not in known:
        raise DataError(f"no {noun} is called '{name}'{suggest(name, known)}")


def _printed(text: str) -> Score:
    return Score(float(text), len(text.partition(".")[2]))


class _Result(BaseModel, extra="allow"):
    dataset: str
    protocol: str
    images: PositiveInt


class _Network(BaseModel, extra="allow"):
    type: str


class _DataSet(BaseModel):
    name: str
    type: str


class _Validation(BaseModel):
    quantize: str
    self_ensemble: SelfEnsemble
    tile: int | None


class _Options(BaseModel):
    network_g: _Network
    datasets: dict[str, _DataSet]
    precision: str
    val: _Validation


class _Provenance(BaseModel):
    options: _Options
    weights_sha256: str
    device: str
    date: str


class _ScoresFile(BaseModel):
    """The part of a scores.json of test.py that tables need.

    Files of earlier versions have no `protocols`.
    """

    method: str
    protocols: dict[str, ProtocolFacts] = {}
    results: list[_Result]
    provenance: _Provenance


def measured_entries(
    file: Path, setting: str, published: Sequence[Entry], task: Task
) -> tuple[list[Entry], list[str]]:
    """Read the scores of a scores.json.

    Args:
        file: written by test.py.
        setting: way of training of the published rows to compare with; it holds for the test sets
            that those rows have, or for all if there are no such rows.
        published: the published rows.
        task: the task.

    Returns:
        the entries, and notes on scores that belong to no table or not to `setting`.

    Raises:
        DataError: if the file is not valid.
    """
    scores = _read_scores(file)
    options = scores.provenance.options
    types = {each.name: each.type for each in options.datasets.values()}
    known = {entry.dataset for entry in published if entry.setting == setting}
    if setting in task.settings and not known:
        known = set(task.images)
    entries, notes = [], []
    for place, result in enumerate(scores.results):
        name = result.dataset
        if name not in task.images or types.get(name) not in task.dataset_types:
            notes.append(
                f"{file}: '{name}' is left out: it is not one of {', '.join(task.images)} as "
                f"{' or '.join(task.dataset_types)}"
            )
            continue
        if setting != UNSTATED and name not in known:
            notes.append(f"{file}: no published row of {setting} is of {name}; it stands apart")
        protocol = _protocol_of(file, scores, result)
        flags = {flag: _value(file, place, result, flag) for flag in protocol.flags}
        entries.append(
            Entry(
                method=scores.method,
                dataset=name,
                protocol=protocol,
                setting=setting if name in known else UNSTATED,
                scores={
                    metric.name: Score(_value(file, place, result, metric.name), metric.decimals)
                    for metric in protocol.metrics
                    if not metric.optional or metric.name in (result.model_extra or {})
                },
                source=_origin(scores.provenance),
                remark="; ".join(flag_remarks(protocol.flags, flags, result.images)),
                whole=result.images in task.images[name],
                file=file,
                images=result.images,
                network=options.network_g.model_dump(),
            )
        )
    return entries, list(dict.fromkeys(notes))


def _protocol_of(file: Path, scores: _ScoresFile, result: _Result) -> ProtocolFacts:
    """Return facts from the registry, or from the file for protocols of packages not installed."""
    if result.protocol in protocol_names() or result.protocol not in scores.protocols:
        try:
            _require(result.protocol, protocol_names(), "protocol")
        except DataError as error:
            raise DataError(f"{file}: {error}") from None
        return protocol_facts(result.protocol)
    return scores.protocols[result.protocol]


def _value(file: Path, place: int, result: _Result, name: str) -> float:
    """Return the value of a metric or flag; "inf" is a number (identical images), NaN is not."""
    where = f"{file}: results.{place}.{name}"
    given = (result.model_extra or {}).get(name)
    try:
        value = float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise DataError(f"{where}: {given!r} is not a number") from None
    if math.isnan(value):
        raise DataError(f"{where}: NaN is not a number")
    if name in METRIC_REGISTRY:
        lowest, highest = METRIC_REGISTRY.entry(name).cls.bounds  # type: ignore[attr-defined]
        if not lowest <= value <= highest:
            raise DataError(f"{where}: {value:g} is not between {lowest:g} and {highest:g}")
    return value


def _read_scores(file: Path) -> _ScoresFile:
    try:
        scores = _ScoresFile.model_validate_json(file.read_bytes())
        ARCH_REGISTRY.entry(scores.provenance.options.network_g.type)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{file}: is no scores.json of basicsr/test.py: {place}{': ' if place else ''}"
            f"{first['msg']}"
        ) from None
    except OptionsError as error:
        raise DataError(f"{file}: {error}") from None
    return scores


def _origin(facts: _Provenance) -> str:
    """Return date, device, network and weights, and settings other than the defaults."""
    val, precision = facts.options.val, facts.options.precision
    parts = [
        f"measured here {facts.date[:10]} on {facts.device}",
        f"network {facts.options.network_g.type}",
        f"weights {facts.weights_sha256[:8]}",
    ]
    if val.quantize == "truncate":
        parts.append("outputs truncated to 8 bits")
    if val.self_ensemble:
        mirrored = val.self_ensemble == "mirror"
        parts.append("self-ensemble of mirror images" if mirrored else "self-ensemble")
    if val.tile:
        parts.append(f"in tiles of {val.tile}")
    if precision != "fp32":
        parts.append(precision)
    return ", ".join(parts)
