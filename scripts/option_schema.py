"""Write the JSON schemas of option files, by which editors complete and check them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pydantic
import torch

from basicsr.options import Options, TestOptions, TrainOptions
from basicsr.utils.cli import command

KINDS: dict[str, type[Options]] = {"train": TrainOptions, "test": TestOptions}
FOLDER = Path(__file__).parents[1] / "options" / "schema"


@command
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder (default: %(default)s)")
    folder: Path = parser.parse_args(arguments).out
    folder.mkdir(parents=True, exist_ok=True)
    for name in KINDS:
        file = folder / f"{name}.schema.json"
        file.write_text(json.dumps(schema(name), indent=1) + "\n", encoding="utf-8")
        print(file)


def schema(name: str) -> dict[str, Any]:
    """The schema of train or test files, with the versions that it depends on."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": versions(),
        **KINDS[name].model_json_schema(),
    }


def versions() -> str:
    """Which optimizers there are is torch's affair, how a schema is written pydantic's."""
    return f"torch=={torch.__version__.partition('+')[0]} pydantic=={pydantic.VERSION}"


if __name__ == "__main__":
    main()
