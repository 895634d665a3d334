from __future__ import annotations

import json

import pytest
from runs import NETWORK, run

from basicsr.models.pretrained import saved_network
from basicsr.utils.files import sha256


@pytest.fixture(scope="module")
def scores(trained, workplace):
    done = run("test.py", "-opt", "test.yml", "--force_yml", "name=of-weights", cwd=workplace)
    assert done.returncode == 0, done.stderr
    return workplace / "results" / "of-weights" / "scores.json"


def test_published_weights_describe_their_training(run_script, trained, scores, tmp_path):
    out = tmp_path / "tiny.safetensors"
    code, printed, err = run_script("publish_weights", trained, "--scores", scores, "-o", out)
    assert (code, err) == (0, "")
    assert printed == f"{out}: SHA-256 {sha256(out)}\n"
    network, weights = saved_network(out)
    original = saved_network(trained / "models" / "net_g_latest.safetensors")[0]
    for key, value in original.state_dict().items():
        assert value.equal(network.state_dict()[key])
    facts = weights.facts
    assert facts["iteration"] == 12
    assert facts["seed"] == 7
    assert facts["train_set"] == "photographs"
    assert facts["options"]["network_g"]["type"] == NETWORK["type"]
    assert facts["options"]["train"]["optim_g"]["lr"] == 1e-3
    measured = json.loads(scores.read_text())["results"][0]
    assert facts["scores"] == [
        {
            "dataset": "photographs",
            "psnr": f"{measured['psnr']:.2f}",
            "ssim": f"{measured['ssim']:.4f}",
            "protocol": "matlab_y",
            "quantize": "truncate",
        }
    ]


def test_mismatched_files_are_rejected(run_script, trained, scores, tmp_path):
    out = tmp_path / "tiny.safetensors"
    older = ("--weights", "8", "--scores", scores, "-o", out)
    code, _, err = run_script("publish_weights", trained, *older)
    assert code == 2
    assert "scores.json: scores of other weights; run test.py with these" in err
    code, _, err = run_script("publish_weights", trained, "--scores", scores, "-o", tmp_path / "a")
    assert code == 2
    assert "must end in .safetensors" in err
    missing = ("--weights", "9", "--scores", scores, "-o", out)
    code, _, err = run_script("publish_weights", trained, *missing)
    assert code == 2
    assert "net_g_9.safetensors: there is no such file" in err
    assert not out.exists()
