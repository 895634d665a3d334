from __future__ import annotations

import json

import pytest
import yaml


@pytest.fixture
def tries(workplace, monkeypatch):
    """Write a file with two tries of two iterations each."""
    monkeypatch.chdir(workplace)
    content = {
        "base": "train.yml",
        "common": [
            "datasets:train:patches=[{size: 16, batch_size: 2, iters: 2}]",
            "train:total_iter=2",
            "val:val_freq=2",
            "logger:print_freq=1",
        ],
        "tries": {"as-it-is": [], "l1": ["train:losses=[{type: L1Loss}]"]},
    }
    file = workplace / "small.yml"
    file.write_text(yaml.safe_dump(content))
    return file


def test_every_try_is_trained_once_and_compared(run_script, tries):
    code, printed, err = run_script("try_options", tries)
    assert (code, err) == (0, "")
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in printed.splitlines()
        if line.startswith("|")
    ]
    assert [row[0] for row in rows] == ["try", "---", "as-it-is", "l1"]
    assert [row[1] for row in rows[2:]] == ["2", "2"]
    log = tries.parent / "experiments" / "small-l1" / "metrics.jsonl"
    logged = [json.loads(line) for line in log.read_text().splitlines()]
    assert "train/L1Loss" in logged[0]
    psnr = next(each["val/matlab_y_psnr"] for each in logged if "val/matlab_y_psnr" in each)
    assert rows[3][2] == f"{psnr:.2f}"

    before = log.read_text()
    code, again, _ = run_script("try_options", tries, "--only", "l1", "--table")
    assert code == 0
    assert again.splitlines()[-1] in printed.splitlines()
    code, again, _ = run_script("try_options", tries, "--only", "l1")
    assert again.splitlines()[-1] in printed.splitlines()
    assert log.read_text() == before


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
    assert "the training above did not finish" in err
