"""The JSON schemas that are shipped for editors, and the option files they are for."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "options" / "schema"
KINDS = ("train", "test")


def load(file: Path) -> dict:
    return json.loads(file.read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_are_made_with_the_pinned_versions(kind):
    pins = {
        line.split(";")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()
    }
    assert set(load(SCHEMAS / f"{kind}.schema.json")["$comment"].split()) <= pins


def test_are_what_the_script_writes(run_script, tmp_path):
    code, printed, _ = run_script("option_schema", "--out", tmp_path)
    assert code == 0
    assert printed.split() == [str(tmp_path / f"{kind}.schema.json") for kind in KINDS]
    for kind in KINDS:
        made, shipped = (load(f / f"{kind}.schema.json") for f in (tmp_path, SCHEMAS))
        if made["$comment"] != shipped["$comment"]:
            pytest.skip(f"shipped for {shipped['$comment']}, here is {made['$comment']}")
        assert made == shipped, "run python scripts/option_schema.py"


@pytest.mark.parametrize("kind", KINDS)
def test_accept_every_option_file(kind):
    check = jsonschema.Draft202012Validator(load(SCHEMAS / f"{kind}.schema.json"))
    files = sorted((ROOT / "options" / kind).rglob("*.yml"))
    assert files
    faults = {
        file.name: [fault.message for fault in check.iter_errors(options)]
        for file in files
        if not check.is_valid(options := with_decimal_points(file))
    }
    assert faults == {}


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        (("network_g", "dimm"), 3, "dimm"),
        (("train", "optim_g", "lr"), "fast", "fast"),
        (("train", "total_iter"), None, "None"),
        (("datasets", "train", "patches"), [], "[]"),
    ],
)
def test_reject_what_is_misspelt(place, value, fault):
    check = jsonschema.Draft202012Validator(load(SCHEMAS / "train.schema.json"))
    options = with_decimal_points(ROOT / "options/train/Deraining/DTPNet_RainTrainL.yml")
    *sections, key = place
    section = options
    for name in sections:
        section = section[name]
    section[key] = value
    assert not check.is_valid(options)
    assert fault in str([fault.message for fault in check.iter_errors(options)])


def with_decimal_points(file: Path) -> dict:
    """As an editor reads it: 1.0e-4 is a number to any YAML parser, 1e-4 to some."""
    return yaml.safe_load(file.read_text())
