from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from runs import ENVIRONMENT, ROOT

from basicsr import options as schema
from basicsr.archs import build_network
from basicsr.models.cost import network_cost
from basicsr.options import TrainOptions, load_options

TRIES = sorted((ROOT / "scripts" / "tries").glob("*.yml"))


@pytest.fixture
def tries(workplace, tmp_path, monkeypatch):
    """Write a file with two tries of two iterations each, and a test."""
    for each in ("clean", "train.yml", "test.yml"):
        (tmp_path / each).symlink_to(workplace / each)
    monkeypatch.chdir(tmp_path)
    content = {
        "base": "train.yml",
        "test": "test.yml",
        "threads": 1,
        "common": [
            "datasets:train:patches=[{size: 16, batch_size: 2, iters: 1}, "
            "{size: 24, batch_size: 3, iters: 1}]",
            "train:total_iter=2",
            "val:val_freq=2",
            "logger:print_freq=1",
        ],
        "tries": {"as-it-is": [], "l1": ["train:losses=[{type: L1Loss}]"]},
    }
    file = tmp_path / "small.yml"
    file.write_text(yaml.safe_dump(content))
    return file


def rows(printed: str) -> list[list[str]]:
    """Return the cells of the Markdown table in `printed`."""
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_every_try_is_trained_and_tested_once(run_script, tries):
    code, printed, err = run_script("try_options", tries, "--record", "kept")
    assert (code, err) == (0, "")
    heads, _, *cells = rows(printed)
    assert heads == [
        *("try", "parameters", "GMACs", "iterations", "patches"),
        *("PSNR (matlab_y, photographs-val)", "SSIM (matlab_y, photographs-val)"),
        *("PSNR (matlab_y, photographs)", "SSIM (matlab_y, photographs)"),
    ]
    assert [row[0] for row in cells] == ["as-it-is", "l1"]
    network = build_network(yaml.safe_load(Path("train.yml").read_text())["network_g"])
    cost = network_cost(network, (1, 3, 256, 256))
    assert cells[0][1:5] == [f"{cost.parameters:,}", f"{cost.macs / 1e9:.2f}", "2", "5"]

    run = Path("experiments", "small-l1")
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert "train/L1Loss" in logged[0]
    psnr = next(each["val/matlab_y_psnr"] for each in logged if "val/matlab_y_psnr" in each)
    assert cells[1][5] == f"{psnr:.2f}"
    tested = json.loads((run / "test" / "scores.json").read_text())
    ssim = next(each["ssim"] for each in tested["results"] if each["protocol"] == "matlab_y")
    assert cells[1][8] == f"{ssim:.4f}"

    kept = json.loads(Path("kept", "table.json").read_text())
    assert Path("kept", "table.md").read_text() in printed
    assert Path("kept", "l1", "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    assert (kept["base"], kept["threads"]) == ("train.yml", 1)
    assert kept["command"] == f"scripts/try_options.py {tries} --record kept"
    result = kept["tries"]["l1"]
    assert result["scores"]["photographs"]["ssim"] == ssim
    assert (result["macs"], result["patches"]) == (cost.macs, 5)
    assert result["training"]["device"].endswith("1 threads")

    before = [path.stat().st_mtime_ns for path in (run / "metrics.jsonl", run / "test/scores.json")]
    code, again, _ = run_script("try_options", tries, "--only", "l1")
    assert code == 0
    assert rows(again)[2] == cells[1]
    after = [path.stat().st_mtime_ns for path in (run / "metrics.jsonl", run / "test/scores.json")]
    assert before == after


def test_a_table_of_what_there_is(run_script, tries):
    code, printed, _ = run_script("try_options", tries, "--table")
    assert code == 0
    assert rows(printed)[2:] == [["as-it-is", *[""] * 4], ["l1", *[""] * 4]]


def test_a_stopped_try_goes_on(tries):
    """SIGTERM reaches the training, which saves its state."""
    content = yaml.safe_load(tries.read_text())
    content["common"] = ["datasets:train:patches=[{size: 16, batch_size: 1, iters: 100000}]"]
    content["common"] += ["train:total_iter=100000", "val:val_freq=100000"]
    content["common"] += ["logger:save_checkpoint_freq=100000"]
    tries.write_text(yaml.safe_dump(content))
    line = [sys.executable, str(ROOT / "scripts" / "try_options.py"), tries.name, "--only", "l1"]
    run = Path("experiments", "small-l1")
    with subprocess.Popen(line, env=ENVIRONMENT, stdout=subprocess.DEVNULL) as process:
        while not (run / "metrics.jsonl").exists() and process.poll() is None:
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait() == 75
    assert list((run / "training_states").glob("*.state"))
    assert not (run / "test").exists()


def test_mistakes_are_one_line(run_script, tries):
    code, _, err = run_script("try_options", tries, "--only", "as-it-iss")
    assert code == 2
    assert "no try is called 'as-it-iss' (did you mean 'as-it-is'?); known: as-it-is, l1" in err
    tries.write_text("base: train.yml\ncommon: []\ntries: [a]\n")
    code, _, err = run_script("try_options", tries)
    assert code == 2
    assert "small.yml: tries: " in err
    tries.write_text("base: train.yml\ncommon: []\ntries: {a: ['train:total_itre=2']}\n")
    code, _, err = run_script("try_options", tries)
    assert code == 2
    assert "train.py above did not finish" in err


def test_patches_seen(load_script):
    stages = [{"iters": 10, "batch_size": 4}, {"iters": 5, "batch_size": 1}]
    seen = load_script("try_options").patches_seen
    assert [seen(stages, iterations) for iterations in (0, 3, 10, 12)] == [0, 12, 40, 42]


@pytest.mark.parametrize("file", TRIES, ids=lambda file: file.stem)
def test_options_of_all_tries_are_valid(load_script, monkeypatch, file):
    monkeypatch.chdir(ROOT)
    plan = load_script("try_options").read_tries(file)
    if plan.test is not None:
        load_options(schema.TestOptions, plan.test)
    for assignments in plan.tries.values():
        load_options(TrainOptions, plan.base, [*plan.common, *assignments])


def test_systems_are_of_one_size(load_script):
    """About 15 GMACs for an image of 256 x 256, or less where a network cannot be changed."""
    plan = load_script("try_options").read_tries(ROOT / "scripts" / "tries" / "systems.yml")
    macs = {}
    for name, assignments in plan.tries.items():
        options = load_options(TrainOptions, ROOT / plan.base, [*plan.common, *assignments])
        network = build_network(options.network_g.arguments())
        macs[name] = network_cost(network, (1, 3, 256, 256)).macs / 1e9
    assert macs.pop("DID-MDN") < 15
    assert set(macs) == {"DTPNet-T", "PReNet", "Restormer", "MPRNet", "SPAIR"}
    assert all(abs(each - 15) <= 1.5 for each in macs.values()), macs
