"""Training and testing from the command line, and the files that they write."""

import csv
import importlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml
from runs import ROOT, run

from basicsr.io.images import read_image, write_png
from basicsr.metrics import measure


@pytest.fixture
def call(workplace, monkeypatch, capsys):
    """Return a function that runs a command in this process; it returns exit code and stderr."""

    def run_here(script, *arguments):
        monkeypatch.chdir(workplace)
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        with pytest.raises(SystemExit) as stopped:
            importlib.import_module(f"basicsr.{script}").main()
        return stopped.value.code, capsys.readouterr().err.strip()

    return run_here


def test_files_of_a_training_run(trained):
    assert {f.name for f in (trained / "models").iterdir()} == {
        "net_g_8.safetensors",
        "net_g_12.safetensors",
        "net_g_latest.safetensors",
        "net_g_best.safetensors",
    }
    assert {f.name for f in (trained / "training_states").iterdir()} == {
        "00000008.json",
        "00000008.state",
        "00000012.json",
        "00000012.state",
    }
    assert {f.name for f in (trained / "samples").iterdir()} == {"00000006.png", "00000012.png"}
    (environment,) = (trained / "environment.jsonl").read_text().splitlines()
    assert {"torch", "numpy"} <= json.loads(environment)["packages"].keys()
    assert list((trained / "tb_logger").iterdir())
    assert len(list((trained / "visualization" / "restored").iterdir())) == 5
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    losses = {line["iteration"]: line for line in lines if "train/loss" in line}
    assert sorted(losses) == [3, 6, 9, 12]
    for line in losses.values():
        total = line["train/SSIMLoss"] + line["train/MSELoss_stage0"]
        assert line["train/loss"] == pytest.approx(total, abs=1e-5)
    assert losses[6]["train/learning_rate"] == pytest.approx(1e-3)
    assert losses[12]["train/learning_rate"] == pytest.approx(5e-4)
    validated = [line["iteration"] for line in lines if "val/matlab_y_psnr" in line]
    assert validated == [6, 12]
    effective = yaml.safe_load((trained / "options.yml").read_text())
    assert effective["train"]["optim_g"]["weight_decay"] == 0.01  # AdamW's default, written out


def test_a_second_run_archives_the_first(trained, workplace):
    arguments = ["-opt", "train.yml", "--force_yml", "name=twice", "logger:use_tb_logger=false"]
    for _ in range(2):
        assert run("train.py", *arguments, cwd=workplace).returncode == 0
    folders = sorted(f.name for f in (workplace / "experiments").glob("twice*"))
    assert folders[0] == "twice"
    assert folders[1].startswith("twice_archived_")


def test_scores_images_and_provenance_of_a_test(trained, workplace):
    done = run("test.py", "-opt", "test.yml", cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert "real: 5 images restored; there is no ground truth to measure against" in done.stdout
    results = workplace / "results" / "tiny-test"
    scores = json.loads((results / "scores.json").read_text())
    assert [(r["dataset"], r["protocol"], r["images"]) for r in scores["results"]] == [
        ("photographs", "matlab_y", 5),
        ("photographs", "dtpnet", 5),
    ]
    with (results / "scores.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["protocol"] == "matlab_y"]
    assert [row["image"] for row in rows] == ["0", "1", "2", "3", "4"]
    mean = sum(float(row["psnr"]) for row in rows) / 5
    assert scores["results"][0]["psnr"] == pytest.approx(mean, abs=1e-7)
    facts = scores["provenance"]
    assert facts["options"]["val"]["quantize"] == "truncate"
    assert len(facts["weights_sha256"]) == 64
    assert {"library", "git_revision", "device", "date", "option_file"} <= set(facts)
    assert f"{mean:.2f}" in (results / "scores.md").read_text()
    assert r"\toprule" in (results / "scores.tex").read_text()
    assert len(list((results / "real" / "restored").iterdir())) == 5
    assert not (results / "real" / "gt").exists()

    measured = subprocess.run(
        [
            *(sys.executable, ROOT / "scripts" / "measure.py"),
            *("--restored", results / "photographs" / "restored"),
            *("--gt", results / "photographs" / "gt"),
            *("--protocol", "matlab_y", "--json", "measured.json", "--workers", "1"),
        ],
        cwd=workplace,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert measured.returncode == 0, measured.stderr
    again = json.loads((workplace / "measured.json").read_text())
    assert f"{mean:.9f}"[:9] in json.dumps(again)


def test_images_without_ground_truth_are_measured_by_protocols_without_reference(
    trained, workplace
):
    rng = np.random.default_rng(0)
    for i in range(2):
        image = rng.integers(0, 256, (200, 210, 3), dtype=np.uint8)
        write_png(workplace / "large" / f"{i}.png", image)
    done = run("test.py", "-opt", "test.yml", "--force_yml", "name=no-reference",
               "datasets={test_1: {name: real, type: ImageFolderDataset, dataroot_lq: large}}",
               "val:protocols=[matlab_y, niqe]", cwd=workplace)  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = workplace / "results" / "no-reference"
    (row,) = json.loads((results / "scores.json").read_text())["results"]
    assert (row["dataset"], row["protocol"], row["images"]) == ("real", "niqe", 2)
    for key, folder in (
        ("niqe", results / "real" / "restored"),
        ("input_niqe", workplace / "large"),
    ):
        scores = [measure(read_image(folder / f"{i}.png"), None, "niqe")["niqe"] for i in range(2)]
        assert row[key] == pytest.approx(np.mean(scores), abs=1e-6)


def test_check_prints_the_cost_and_starts_no_run(workplace):
    done = run("train.py", "-opt", "train.yml", "--check", "--force_yml", "name=checked",
               cwd=workplace)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the options are valid; 5 training images" in done.stdout
    assert "parameters" in done.stdout
    assert not (workplace / "experiments" / "checked").exists()


@pytest.mark.parametrize(
    ("script", "force", "message"),
    [
        ("train", "datasets:train:dataroot_gt=nowhere", "nowhere"),
        ("train", "network_g:heads=[3,1,2,2]", "heads: 8 channels cannot be divided among 3 heads"),
        ("train", "path:pretrain_network_g=none.pth", "no such file, run or shipped weights"),
        ("train", "path:resume_state=train.yml", "train.yml: damaged, or no PyTorch file"),
        ("train", "train:losses:1:stage=5", "there is no stage 5"),
        ("train", "train:losses=[{type: MaskLoss}]", "train.yml: train.losses: MaskLoss needs 3"),
        ("train", "train:optim_g:type=Muon", "train.optim_g: Muon"),
        ("test", "path:pretrain_network_g=test.yml", "test.yml: damaged, or no PyTorch file"),
        ("test", "network_g:dim=16", "net_g_latest.safetensors"),
        ("test", "network_g={type: PReNet}", "weights of DTPNet, but network_g.type is PReNet"),
        ("test", "datasets:test_1:dataroot_gt=train.yml", "train.yml"),
    ],
)
def test_errors_are_one_line(trained, workplace, script, force, message, call):
    code, error = call(script, "-opt", f"{script}.yml", "--force_yml", "name=fault", force)
    assert code == 2
    assert error.startswith("error: ")
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (workplace / "experiments" / "fault").exists()


def test_a_truncated_image_is_named(trained, workplace, call):
    broken = workplace / "broken"
    broken.mkdir()
    whole = (workplace / "clean" / "0.png").read_bytes()
    (broken / "0.png").write_bytes(whole[: len(whole) // 2])
    code, error = call(
        "test", "-opt", "test.yml", "--force_yml", "datasets:test_1:dataroot_gt=broken"
    )
    assert code == 2
    assert len(error.splitlines()) == 1
    assert "0.png" in error
