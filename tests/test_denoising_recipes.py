"""The recipes for denoisers read no image of their test sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from basicsr.data import build_dataset
from basicsr.io.images import list_images, write_png

ROOT = Path(__file__).parents[1]
_PIXEL = np.zeros((1, 1, 3), np.uint8)
_ARGUMENTS = {"type", "dataroot_gt", "files", "sigma", "split", "color"}
RECIPES = sorted((ROOT / "options/train/Denoising").glob("*.yml"))


def _parts(options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for section in options["datasets"].values():
        yield from section.get("parts", [section])


def _number(name: str) -> str:
    return Path(name).stem


@pytest.fixture
def test_images(shared_data) -> set[str]:
    """Return the numbers of CBSD68, of which 44 are among the clean photographs."""
    numbers = {_number(path.name) for path in list_images(shared_data / "denoising/CBSD68")}
    text = (shared_data / "README.md").read_text()
    among_clean = set(text.split("by name: ")[1].split(". Clean")[0].split(", "))
    assert len(among_clean) == 44
    assert among_clean <= numbers
    return numbers


@pytest.mark.shared_data
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_no_recipe_reads_a_test_image(recipe, shared_data, test_images, tmp_path, monkeypatch):
    """Every folder that a recipe names holds all clean photographs, with the numbers of BSDS500."""
    photographs = [path.name for path in list_images(shared_data / "clean_BSDS")]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Denoising").symlink_to(ROOT / "Denoising")
    options = yaml.safe_load(recipe.read_text())
    read = set()
    for part in _parts(options):
        if "files" not in part:  # sets of others, which prepare.py and check_dataset.py check
            continue
        for name in photographs:
            path = tmp_path / part["dataroot_gt"] / name
            if not path.exists():
                write_png(path, _PIXEL)
        arguments = {key: value for key, value in part.items() if key in _ARGUMENTS}
        read |= {_number(name) for name in build_dataset(arguments).names}
    assert not read & test_images
    if "photographs.txt" in recipe.read_text():
        assert len(read) == 165


def test_the_list_of_photographs_has_no_test_image(test_images, shared_data):
    listed = (ROOT / "Denoising/photographs.txt").read_text().split()
    assert len(listed) == len(set(listed)) == 165
    assert not {_number(name) for name in listed} & test_images
    clean = {path.name for path in list_images(shared_data / "clean_BSDS")}
    assert set(listed) == {name for name in clean if _number(name) not in test_images}
