"""Tables of a toy task: its files, a lower-is-better metric, and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from basicsr.evaluation.comparison import Block, blocks
from basicsr.evaluation.entries import UNSTATED, measured_entries, published_entries
from basicsr.evaluation.task import Task, find_task
from basicsr.utils.errors import DataError, OptionsError

TABLES = """
tables:
  Fog: {datasets: [FogA, FogB]}
  All: {datasets: [FogB, Mist], also_settings: [big]}
images: {FogA: [2], FogB: [3], Mist: [4, 5]}
settings: {small: trained on FogA, big: trained on everything}
"""
ROWS = """table,method,dataset,psnr,niqe,protocol,source
small,Old,FogA,20.10,,rgb,a paper
small,New,FogA,20.9,,rgb,a paper
small,Old,FogA,,4.25,niqe,a paper
small,New,FogA,,3.75,niqe (of crops),another
big,Old,FogB,19,,rgb,a paper
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "Defogging"
    folder.mkdir()
    (folder / "tables.yml").write_text(TABLES)
    (folder / "published_results.csv").write_text(ROWS)
    return folder


def scores_json(file: Path, results: list[dict], **facts: object) -> Path:
    options = {
        "network_g": {"type": "PReNet"},
        "datasets": {"test_1": {"name": "FogA", "type": "PairedImageDataset"}},
        "precision": "bf16",
        "val": {"quantize": "round", "self_ensemble": True, "tile": 64},
    }
    provenance = {
        "options": options,
        "weights_sha256": "ab" * 32,
        "device": "a GPU",
        "date": "2026-01-02T03:04:05",
    }
    document = {"method": "mine", "results": results, "provenance": provenance, **facts}
    file.write_text(json.dumps(document))
    return file


def block_of(found: list[Block], protocol: str, setting: str) -> Block:
    (block,) = [b for b in found if (b.protocol.name, b.setting) == (protocol, setting)]
    return block


def test_published_rows_with_other_metrics(folder) -> None:
    task = Task.load(folder)
    entries = published_entries(folder / "published_results.csv", task)
    found = blocks("Fog", entries, task)
    assert [(b.protocol.name, b.setting) for b in found] == [
        ("rgb", "small"),
        ("rgb", "big"),
        ("niqe", "small"),
    ]
    rgb, niqe = found[0], found[2]
    assert [metric.name for metric in rgb.metrics] == ["psnr"]  # none of them prints SSIM
    assert rgb.places("FogA", rgb.metrics[0]) == [2, 1]
    assert niqe.places("FogA", niqe.metrics[0]) == [2, 1]  # lower is better
    assert [str(row.entries["FogA"].scores["niqe"]) for row in niqe.rows] == ["4.25", "3.75"]
    assert niqe.rows[1].source == "another; of crops"
    assert niqe.title == "small: trained on FogA"
    # a later table shows FogB for the ways of training that it names
    assert [(b.setting, b.datasets) for b in blocks("All", entries, task)] == [("big", ["FogB"])]


def test_numbers_of_one_method_from_two_sources_and_how_they_were_read(folder) -> None:
    task = Task.load(folder)
    rows = [
        "small,Old,FogA,20.1,,rgb,yes,a paper",
        "small,Old,FogB,19.1,,rgb (whole images),secondary,notes",
        "small,Old,FogA,20.3,,rgb (crops),secondary,notes",
        "small,Old,FogA,20.2,,rgb,measured,weights",
    ]
    file = folder / "published_results.csv"
    file.write_text(
        "\n".join(["table,method,dataset,psnr,niqe,protocol,verified,source", *rows, ""])
    )
    (block,) = blocks("Fog", published_entries(file, task), task)
    assert [
        ({name: str(entry.scores["psnr"]) for name, entry in row.entries.items()}, row.source)
        for row in block.rows
    ] == [
        ({"FogA": "20.1"}, "a paper"),
        (
            {"FogB": "19.1", "FogA": "20.3"},
            "notes, second-hand; FogB: whole images; FogA: crops",
        ),
        ({"FogA": "20.2"}, "weights, measured for this project"),
    ]
    file.write_text(file.read_text().replace("secondary", "secondhand"))
    with pytest.raises(DataError, match="no value of 'verified' is called 'secondhand'"):
        published_entries(file, task)


def test_a_way_of_training_without_published_rows(folder) -> None:
    (folder / "tables.yml").write_text(TABLES.replace("{small:", "{new: by us, small:"))
    results = [{"dataset": "Mist", "protocol": "rgb", "images": 4, "psnr": 21.0, "ssim": 0.9}]
    file = scores_json(folder / "scores.json", results)
    document = json.loads(file.read_text())
    document["provenance"]["options"]["datasets"]["test_1"]["name"] = "Mist"
    file.write_text(json.dumps(document))
    task = Task.load(folder)
    published = published_entries(folder / "published_results.csv", task)
    (entry,), notes = measured_entries(file, "new", published, task)
    assert (entry.dataset, entry.setting, notes) == ("Mist", "new", [])


def test_measured_scores_of_a_package_that_is_not_installed(folder) -> None:
    """The scores file itself says what its metrics are."""
    task = Task.load(folder)
    metric = {"name": "far", "unit": "", "better": "lower", "decimals": 1}
    facts = {"name": "iqa:far", "description": "far of pyiqa", "metrics": [metric]}
    file = scores_json(
        folder / "scores.json",
        [
            {"dataset": "FogA", "protocol": "iqa:far", "images": 2, "far": 0.25, "input_far": 1.0},
            {"dataset": "FogA", "protocol": "rgb", "images": 1, "psnr": "inf", "ssim": 1.0},
        ],
        protocols={"iqa:far": facts},
    )
    entries, notes = measured_entries(file, UNSTATED, [], task)
    assert notes == []
    far, rgb = entries
    assert (str(far.scores["far"]), far.whole) == ("0.2", True)
    assert (str(rgb.scores["psnr"]), str(rgb.scores["ssim"]), rgb.whole) == ("inf", "1.0000", False)
    assert far.source == (
        "measured here 2026-01-02 on a GPU, network PReNet, weights abababab, self-ensemble, "
        "in tiles of 64, bf16"
    )
    block = block_of(blocks("Fog", entries, task), "iqa:far", UNSTATED)
    assert (block.protocol.description, block.metrics[0].label) == ("far of pyiqa", "FAR")


def test_scores_of_earlier_versions_have_no_protocols(folder) -> None:
    results = [{"dataset": "FogA", "protocol": "rgb", "images": 2, "psnr": 21.0, "ssim": 0.9}]
    file = scores_json(folder / "scores.json", results)
    published = published_entries(folder / "published_results.csv", Task.load(folder))
    (entry,), _ = measured_entries(file, "small", published, Task.load(folder))
    assert (entry.setting, str(entry.scores["psnr"])) == ("small", "21.00")


def test_a_task_says_which_data_sets_belong_to_its_tables(folder) -> None:
    (folder / "tables.yml").write_text(TABLES + "dataset_types: [GaussianNoiseDataset]\n")
    results = [{"dataset": "FogA", "protocol": "rgb", "images": 2, "psnr": 21.0, "ssim": 0.9}]
    file = scores_json(folder / "scores.json", results)
    entries, notes = measured_entries(file, UNSTATED, [], Task.load(folder))
    assert entries == []
    assert notes == [
        f"{file}: 'FogA' is left out: it is not one of FogA, FogB, Mist as GaussianNoiseDataset"
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("datasets: [FogA, FogB]", "datasets: [FogA, FogC]"), "tables.Fog: 'FogC' is missing in"),
        (("also_settings: [big]", "also_settings: [bg]"), r"tables.All: 'bg' is .* mean 'big'"),
        (("FogA: [2]", "FogA: 2"), "images.FogA: Input should be a valid list"),
        (("FogA: [2]", "FogA: [0]"), "images.FogA.0: Input should be greater than 0"),
        (("\nsettings", "\nsetings"), "settings: Field required"),
        (("tables:", "extra: 1\ntables:"), "extra: Extra inputs are not permitted"),
    ],
)
def test_faults_of_tables_yml(folder, change, message) -> None:
    (folder / "tables.yml").write_text(TABLES.replace(*change))
    with pytest.raises(OptionsError, match=message) as error:
        Task.load(folder)
    assert str(error.value).startswith(f"{folder}/tables.yml: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("table,method", "tabel,method"), "has no column 'table'"),
        ((",psnr,niqe", ",psnr,lpipz"), "no metric of niqe is called 'lpipz'"),
        (("20.10", "20,10"), "has more cells than columns"),
        (("20.10", "twenty"), "could not convert string to float: 'twenty'"),
        (("small,Old", "smal,Old"), r"no table is called 'smal' \(did you mean 'small'\?\)"),
        (("Old,FogA", "Old,Foga"), r"no data set is called 'Foga' \(did you mean 'FogA'\?\)"),
    ],
)
def test_faults_of_published_results(folder, change, message) -> None:
    file = folder / "published_results.csv"
    file.write_text(ROWS.replace(*change))
    with pytest.raises(DataError, match=message) as error:
        published_entries(file, Task.load(folder))
    assert str(error.value).startswith(f"{file}: ")


def test_which_task(folder) -> None:
    root = folder.parent
    assert find_task(root, None, "Deraining") == folder  # the only one
    assert find_task(root, str(folder), "Deraining") == folder
    (root / "Deraining").mkdir()
    (root / "Deraining" / "tables.yml").write_text(TABLES)
    assert find_task(root, None, "Deraining") == root / "Deraining"
    assert find_task(root, "Defogging", "Deraining") == folder
    with pytest.raises(OptionsError) as error:
        find_task(root, "Defoging", "Deraining")
    assert str(error.value) == (
        "--task Defoging: no folder with a tables.yml (did you mean 'Defogging'?); "
        "known: Defogging, Deraining"
    )
