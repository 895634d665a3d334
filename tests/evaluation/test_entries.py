"""Measured scores for tables: flags of protocols, and metrics that were left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from basicsr.evaluation.entries import Entry, measured_entries
from basicsr.evaluation.evaluate import ImageScores
from basicsr.evaluation.score_files import summary, write_results
from basicsr.evaluation.task import Task
from basicsr.metrics import Scores
from basicsr.options import TestOptions as Options  # not a class of tests
from basicsr.options import load_options
from basicsr.utils.errors import DataError

ROOT = Path(__file__).parents[2]
ALIGNED = {"psnr": 30.0, "ssim_gaussian": 0.9, "unaligned": 0.0}
UNALIGNED = {"psnr": 20.0, "ssim_gaussian": 0.5, "unaligned": 1.0}


TABLES = """
tables: {Toy: {datasets: [Toy]}}
images: {Toy: [4]}
settings: {toy: trained on Toy}
"""


def scores_file(folder: Path, protocol: str, images: list[Scores]) -> Path:
    """Write a scores.json of these images of the data set Toy."""
    options = load_options(Options, ROOT / "options/test/Deraining/PReNet_Rain100L.yml")
    document = options.model_dump(mode="json")
    document["datasets"]["test_1"]["name"] = "Toy"
    facts = {"options": document, "weights_sha256": "1a2b" * 16, "device": "a", "date": "2026"}
    measured = {"Toy": [ImageScores(str(i), {protocol: s}, {}) for i, s in enumerate(images)]}
    write_results(folder, "net", measured, summary(measured, [protocol]), facts)
    return folder / "scores.json"


def entry(file: Path) -> Entry:
    (file.parent / "tables.yml").write_text(TABLES)
    (found,), notes = measured_entries(file, "toy", [], Task.load(file.parent))
    assert notes == []
    return found


def test_images_without_alignment_are_remarked(tmp_path) -> None:
    images = [ALIGNED, UNALIGNED, UNALIGNED, ALIGNED]
    file = scores_file(tmp_path, "realblur", images)
    found = entry(file)
    assert {name: str(score) for name, score in found.scores.items()} == {
        "psnr": "25.00",
        "ssim_gaussian": "0.7000",
    }
    assert found.remark.startswith("2 of 4 images: alignment failed (ECC did not converge")

    file = scores_file(tmp_path, "realblur", [ALIGNED])
    assert entry(file).remark == ""
    document = json.loads(file.read_text())
    del document["results"][0]["unaligned"]
    file.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"results\.0\.unaligned: None is not a number"):
        entry(file)


def test_a_metric_may_be_left_out_if_it_is_optional(tmp_path) -> None:
    scores = {"psnr": 25.0, "ssim_uniform": 0.8, "mae": 0.04}
    file = scores_file(tmp_path, "dpdd", [scores])
    assert list(entry(file).scores) == ["psnr", "ssim_uniform", "mae"]
    file = scores_file(tmp_path, "dpdd", [{**scores, "lpips": 0.1784}])
    assert str(entry(file).scores["lpips"]) == "0.178"
    file = scores_file(tmp_path, "dpdd", [{"psnr": 25.0, "ssim_uniform": 0.8}])
    with pytest.raises(DataError, match=r"results\.0\.mae: None is not a number"):
        entry(file)
