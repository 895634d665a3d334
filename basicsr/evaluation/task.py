"""Tables of a restoration task, as its `tables.yml` describes them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveInt, ValidationError

from basicsr.options.yaml_files import read_yaml
from basicsr.utils.components import Strict
from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import suggest

TABLES_FILE = "tables.yml"
PUBLISHED_FILE = "published_results.csv"


class Table(Strict):
    """Test sets of a table.

    `also_settings`: ways of training for which it also shows test sets of earlier tables.
    """

    datasets: Annotated[list[str], Field(min_length=1)]
    also_settings: list[str] = Field(default_factory=list)


class Task(Strict):
    """Content of a `tables.yml`.

    Attributes:
        tables: tables by name, in order.
        images: numbers of images that count as the whole test set, by test set.
        settings: descriptions of the ways of training of published rows, by name.
        as_printed: remark on published rows whose protocol is unknown.
        dataset_types: types of data sets whose measured scores belong to the tables.
    """

    tables: Annotated[dict[str, Table], Field(min_length=1)]
    images: dict[str, Annotated[list[PositiveInt], Field(min_length=1)]]
    settings: dict[str, str]
    as_printed: str = ""
    dataset_types: list[str] = Field(default=["PairedImageDataset"])

    @classmethod
    def load(cls, folder: Path) -> Task:
        """Read `tables.yml` of a task's folder. Raises OptionsError for one that is not valid."""
        file = folder / TABLES_FILE
        try:
            task = cls.model_validate(read_yaml(file))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise OptionsError(f"{file}: {place}: {first['msg']}") from None
        for name, table in task.tables.items():
            for dataset in table.datasets:
                _require(dataset, task.images, f"{file}: tables.{name}", "images")
            for setting in table.also_settings:
                _require(setting, task.settings, f"{file}: tables.{name}", "settings")
        return task

    def shows(self, table: str, dataset: str, setting: str) -> bool:
        """Return whether a table has a row's scores on a test set."""
        first = next((name for name, each in self.tables.items() if dataset in each.datasets), None)
        spec = self.tables[table]
        return dataset in spec.datasets and (first == table or setting in spec.also_settings)

    def image_count(self, dataset: str) -> str:
        """Return the size of the whole test set as text: "98 or 100"."""
        return " or ".join(map(str, self.images[dataset]))


def _require(name: str, known: Iterable[str], place: str, section: str) -> None:
    if name not in known:
        raise OptionsError(f"{place}: '{name}' is missing in {section}{suggest(name, known)}")


def find_task(root: Path, name: str | None, default: str) -> Path:
    """Return the folder of a task: a path, or a folder of `root` with a `tables.yml`.

    Without a name, it is the only task of `root`, or `default`. Raises OptionsError if there is no
    such task.
    """
    known = sorted(file.parent.name for file in root.glob(f"*/{TABLES_FILE}"))
    if name is None:
        name = known[0] if len(known) == 1 else default
    for folder in (root / name, Path(name)):
        if (folder / TABLES_FILE).is_file():
            return folder
    raise OptionsError(
        f"--task {name}: no folder with a {TABLES_FILE}{suggest(name, known)}; "
        f"known: {', '.join(known) or 'none'}"
    )
