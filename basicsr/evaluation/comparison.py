"""Published and measured scores side by side, kept apart where they do not compare.

A block holds numbers of one protocol and one way of training; only there a best one is marked.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field, PositiveInt, ValidationError

from basicsr.archs import ARCH_REGISTRY
from basicsr.metrics import protocol_names
from basicsr.utils.errors import DataError, OptionsError
from basicsr.utils.registry import suggest

TABLES = {
    "Rain100": ("Rain100L", "Rain100H"),
    "Rain200": ("Rain200L", "Rain200H"),
    "SPA": ("SPA-Data",),
    "Rain12": ("Rain12",),
    "Rain1400": ("Rain1400",),
    "Rain13K": ("Test100", "Test1200", "Test2800", "Rain100L", "Rain100H"),
}
IMAGES = {  # of a whole test set; the copy of Test100 that MPRNet uses lacks two
    "Rain100L": (100,),
    "Rain100H": (100,),
    "Rain200L": (200,),
    "Rain200H": (200,),
    "SPA-Data": (1000,),
    "Rain12": (12,),
    "Rain1400": (1400,),
    "Test100": (98, 100),
    "Test1200": (1200,),
    "Test2800": (2800,),
}
_README = "as the {} table of DTPNet's README, which does not tell the training data"
SETTINGS = {  # the published rows' ways of training, by `table` of the CSV file
    "prenet": "trained on RainTrainL for Rain100L and Rain12, for Rain100H on the 1254 images of "
    "RainTrainH that show none of its scenes, on Rain12600 for Rain1400",
    "rain13k": "one network trained on Rain13K for all test sets; its Rain100L/H are the 480 x 320 "
    "copies",
    "rain200_spa": "trained on the training images of each data set",
    "dtpnet_rain100": _README.format("Rain100"),
    "dtpnet_rain200": _README.format("Rain200"),
    "dtpnet_spa": _README.format("SPA"),
}
UNSTATED = "training data not stated"
AS_PRINTED = "as printed"


class Score(NamedTuple):
    """A PSNR in dB or an SSIM, and how many decimals are told of it."""

    value: float
    decimals: int

    def __str__(self) -> str:
        return f"{self.value:.{self.decimals}f}"


class Entry(NamedTuple):
    """The scores of one method on one data set.

    Measured ones come with their scores.json, the images counted, and the network's options.
    """

    method: str
    dataset: str
    protocol: str
    setting: str
    psnr: Score
    ssim: Score
    source: str
    remark: str = ""
    file: Path | None = None
    images: int | None = None
    network: Mapping[str, Any] | None = None

    @property
    def measured(self) -> bool:
        return self.file is not None

    @property
    def whole(self) -> bool:
        """Whether the whole test set was measured; published rows are taken at their word."""
        return self.images is None or self.images in IMAGES[self.dataset]


class Row(NamedTuple):
    """A method's line of a block, with its entries by data set."""

    method: str
    measured: bool
    reconstruction: bool
    source: str
    entries: dict[str, Entry]


class Block(NamedTuple):
    """Numbers of one protocol and one way of training, of whole test sets or of other counts."""

    protocol: str
    setting: str
    whole: bool
    datasets: list[str]
    rows: list[Row]

    @property
    def title(self) -> str:
        about = f": {SETTINGS[self.setting]}" if self.setting in SETTINGS else ", measured here"
        return ("" if self.whole else "not the whole test set; ") + self.setting + about

    @property
    def comparable(self) -> bool:
        return self.whole and self.protocol != AS_PRINTED and self.setting in SETTINGS

    def places(self, dataset: str, score: Callable[[Entry], Score]) -> list[int]:
        """For each row 1 if it is best, 2 if second best, else 0; equal numbers share a place.

        Numbers are compared to the decimals that all of the column have.
        """
        entries = [row.entries.get(dataset) for row in self.rows]
        column = [score(entry) for entry in entries if entry]
        if not self.comparable or len(column) < 2:
            return [0] * len(entries)
        decimals = min(each.decimals for each in column)
        best = sorted({round(each.value, decimals) for each in column}, reverse=True)[:2]
        places = {value: place for place, value in enumerate(best, 1)}
        return [
            places.get(round(score(entry).value, decimals), 0) if entry else 0 for entry in entries
        ]


def published_entries(file: Path) -> list[Entry]:
    """The rows of the CSV file of published results.

    Raises DataError, with the row, where one makes no sense.
    """
    entries = []
    with file.open(newline="") as stream:
        for row in csv.DictReader(stream):
            try:
                entries.append(_published(row))
            except (KeyError, ValueError, DataError) as error:
                line = ",".join(map(str, row.values()))
                raise DataError(f"{file}: '{line}': {error}") from None
    return entries


def _published(row: dict[str, str]) -> Entry:
    protocol, _, remark = row["protocol"].partition(" (")
    _require(row["table"], SETTINGS, "table")
    _require(row["dataset"], IMAGES, "data set")
    _require(protocol, [*protocol_names(), AS_PRINTED], "protocol")
    return Entry(
        row["method"],
        row["dataset"],
        protocol,
        row["table"],
        _printed(row["psnr"]),
        _printed(row["ssim"]),
        row["source"],
        f"{row['dataset']}: {remark.removesuffix(')')}" if remark else "",
    )


def _require(name: str, known: Iterable[str], kind: str) -> None:
    if name not in known:
        raise DataError(f"no {kind} is called '{name}'{suggest(name, known)}")


def _printed(text: str) -> Score:
    return Score(float(text), len(text.partition(".")[2]))


class Result(BaseModel):
    dataset: str
    protocol: str
    images: PositiveInt
    psnr: Annotated[float, Field(ge=-1000)]  # infinite for equal images; the bound refuses NaN
    ssim: Annotated[float, Field(ge=-1, le=1)]


class NetworkFacts(BaseModel, extra="allow"):
    type: str


class DataSetFacts(BaseModel):
    name: str
    type: str


class ValidationFacts(BaseModel):
    quantize: str
    self_ensemble: bool
    tile: int | None


class OptionFacts(BaseModel):
    network_g: NetworkFacts
    datasets: dict[str, DataSetFacts]
    precision: str
    val: ValidationFacts


class Provenance(BaseModel):
    options: OptionFacts
    weights_sha256: str
    device: str
    date: str


class ScoresFile(BaseModel):
    """What is needed of a scores.json of test.py."""

    method: str
    results: list[Result]
    provenance: Provenance


def measured_entries(
    file: Path, setting: str, published: Sequence[Entry]
) -> tuple[list[Entry], list[str]]:
    """The scores of a scores.json, and notes of what belongs to no table or not to `setting`.

    `setting` is the way of training of the published rows that these are to stand among, for the
    data sets that those rows are of. Raises DataError where the file makes no sense.
    """
    scores = _read_scores(file)
    drawn = {d.name for d in scores.provenance.options.datasets.values() if not _reads_pairs(d)}
    known = {entry.dataset for entry in published if entry.setting == setting}
    entries, notes = [], []
    for result in scores.results:
        name = result.dataset
        if name not in IMAGES or name in drawn:
            notes.append(
                f"{file}: '{name}' is left out: it is none of {', '.join(IMAGES)} with its own rain"
            )
            continue
        if setting != UNSTATED and name not in known:
            notes.append(f"{file}: no published row of {setting} is of {name}; it stands apart")
        entries.append(
            Entry(
                method=scores.method,
                dataset=name,
                protocol=result.protocol,
                setting=setting if name in known else UNSTATED,
                psnr=Score(result.psnr, 2),
                ssim=Score(result.ssim, 4),
                source=_origin(scores.provenance),
                file=file,
                images=result.images,
                network=scores.provenance.options.network_g.model_dump(),
            )
        )
    return entries, list(dict.fromkeys(notes))


def _reads_pairs(dataset: DataSetFacts) -> bool:
    return dataset.type == "PairedImageDataset"


def _read_scores(file: Path) -> ScoresFile:
    try:
        scores = ScoresFile.model_validate_json(file.read_bytes())
        ARCH_REGISTRY.entry(scores.provenance.options.network_g.type)
        for result in scores.results:
            _require(result.protocol, protocol_names(), "protocol")
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{file}: is no scores.json of basicsr/test.py: {place}{': ' if place else ''}"
            f"{first['msg']}"
        ) from None
    except (OptionsError, DataError) as error:
        raise DataError(f"{file}: {error}") from None
    return scores


def _origin(facts: Provenance) -> str:
    """Where a measured number comes from, and what was done otherwise than usual."""
    val, precision = facts.options.val, facts.options.precision
    return ", ".join(
        [
            f"measured here {facts.date[:10]} on {facts.device}",
            f"network {facts.options.network_g.type}",
            f"weights {facts.weights_sha256[:8]}",
            *(["outputs truncated to 8 bits"] if val.quantize == "truncate" else []),
            *(["self-ensemble"] if val.self_ensemble else []),
            *([f"in tiles of {val.tile}"] if val.tile else []),
            *([precision] if precision != "fp32" else []),
        ]
    )


def is_reconstruction(network: str) -> bool:
    """Whether the registered network is built from a description, for want of published code."""
    cls: Any = ARCH_REGISTRY.entry(network).cls
    return bool(cls.reconstruction)


def blocks(table: str, entries: Sequence[Entry]) -> list[Block]:
    """The blocks of a table that have rows, protocol by protocol."""
    grouped: dict[tuple[str, bool, str], list[Entry]] = {}
    for entry in entries:
        if belongs(entry, table):
            grouped.setdefault((entry.protocol, entry.whole, entry.setting), []).append(entry)
    keys = [
        (protocol, whole, setting)
        for protocol in [*protocol_names(), AS_PRINTED]
        for whole in (True, False)
        for setting in [*SETTINGS, UNSTATED]
    ]
    return [_block(table, *key, grouped[key]) for key in keys if key in grouped]


def belongs(entry: Entry, table: str) -> bool:
    """Rain13K's table shows Rain100L/H for networks trained on Rain13K only."""
    first = next(name for name, datasets in TABLES.items() if entry.dataset in datasets)
    return entry.dataset in TABLES[table] and (first == table or entry.setting == "rain13k")


def _block(table: str, protocol: str, whole: bool, setting: str, entries: Sequence[Entry]) -> Block:
    """One row for each published method and each scores.json, in the order they come in."""
    lines: dict[tuple[str, Path | None], list[Entry]] = {}
    for entry in entries:
        lines.setdefault((entry.method, entry.file), []).append(entry)
    shown = {entry.dataset for entry in entries}
    return Block(
        protocol,
        setting,
        whole,
        [name for name in TABLES[table] if name in shown],
        [_row(line) for line in lines.values()],
    )


def _row(entries: Sequence[Entry]) -> Row:
    first = entries[0]
    remarks = [entry.remark for entry in entries if entry.remark]
    sources = dict.fromkeys(entry.source for entry in entries)
    return Row(
        first.method,
        first.measured,
        first.network is not None and is_reconstruction(first.network["type"]),
        "; ".join([*sources, *remarks]),
        {entry.dataset: entry for entry in entries},
    )
