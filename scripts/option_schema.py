"""Write the JSON schemas of option files, with which editors complete and check them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pydantic
import torch

from basicsr.options import Options, TestOptions, TrainOptions
from basicsr.utils.cli import command, script_parser

MODELS: dict[str, type[Options]] = {"train": TrainOptions, "test": TestOptions}
FOLDER = Path(__file__).parents[1] / "options" / "schema"


@command
def main(arguments: list[str] | None = None) -> None:
    parser = script_parser(__doc__)
    parser.add_argument(
        "--out", type=Path, default=FOLDER, help="output folder (default: %(default)s)"
    )
    folder: Path = parser.parse_args(arguments).out
    folder.mkdir(parents=True, exist_ok=True)
    for name in MODELS:
        file = folder / f"{name}.schema.json"
        file.write_text(json.dumps(schema(name), indent=1) + "\n", encoding="utf-8")
        print(file)


def schema(name: str) -> dict[str, Any]:
    """Return the schema of "train" or "test" files."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": versions(),
        **MODELS[name].model_json_schema(),
    }


def versions() -> str:
    """Return the versions that the schema depends on.

    PyTorch decides which optimizers there are, pydantic how a schema is written.
    """
    return f"torch=={torch.__version__.partition('+')[0]} pydantic=={pydantic.VERSION}"


if __name__ == "__main__":
    main()
