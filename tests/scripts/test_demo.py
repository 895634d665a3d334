"""Command demo.py: the commands that it runs, and how long the training may take."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from basicsr.io.images import read_image, write_png
from basicsr.options import TestOptions as Options  # not a class of tests
from basicsr.options import TrainOptions, load_options

ROOT = Path(__file__).parents[2]
FOLDERS = ["Deraining", "Motion_Deblurring", "Defocus_Deblurring", "Denoising"]


@pytest.fixture
def demo(load_script, monkeypatch, tmp_path):
    """The script, with commands that are recorded and take 2 s each instead of being run."""
    script = load_script("demo")
    now = [0.0]
    commands = []

    def run(name, *arguments):
        now[0] += 2.0
        commands.append([name, *arguments])

    monkeypatch.setattr(script, "run", run)
    monkeypatch.setattr(script, "write_mean_of_views", lambda images: None)
    monkeypatch.setattr(script, "gain", lambda lq, restored, *more: f"gain of {restored}")
    monkeypatch.setattr(script, "iterations", lambda name: 500)
    monkeypatch.setattr(script.time, "monotonic", lambda: now[0])
    return script, commands


def test_shipped_weights_first_and_then_a_training(demo, capsys):
    script, commands = demo
    script.main([])
    shipped, training, test, page = commands
    assert shipped[:2] == ["basicsr/test.py", "-opt"]
    changes = dict(each.split("=", 1) for each in shipped[4:])
    assert changes["name"] == "demo_shipped"
    assert changes["path:pretrain_network_g"] == "pretrained_models/DTPNet-T_any-rain.safetensors"
    options = load_options(Options, ROOT / shipped[2], shipped[4:])
    assert options.network_g.type == json.loads(changes["network_g"])["type"]
    # 58 s, less 2 for the first test, 1.5 x 2 for what follows and 4 for the page
    assert training[-1] == "train:time_limit=49"
    assert test[4:] == ["name=demo"]
    restored = page[page.index("--restored") + 1 : page.index("--gt")]
    assert restored == [
        "shipped DTPNet-T_any-rain=results/demo_shipped/photographs/restored",
        "trained just now=results/demo/photographs/restored",
    ]
    printed = capsys.readouterr().out
    assert "8 s, 500 iterations; PSNR, protocol matlab_y:" in printed
    assert f"trained just now: gain of {ROOT}/results/demo/photographs/restored\n" in printed


def test_a_slow_machine_trains_for_the_least_time(demo):
    script, commands = demo
    script.main(["--seconds", "5"])
    assert commands[1][-1] == "train:time_limit=15"


def test_a_task_without_weights(demo):
    script, commands = demo
    script.main(["--task", "motion", "--seconds", "100"])
    assert commands[0][-1] == "--check"
    assert commands[1][2] == "options/train/Motion_Deblurring/demo_motion.yml"
    assert commands[1][-1] == "train:time_limit=91"
    assert "--protocol" in commands[3]
    assert commands[3][commands[3].index("--protocol") + 1] == "gopro"


def test_help_does_not_train(demo, capsys):
    script, commands = demo
    with pytest.raises(SystemExit) as stop:
        script.main(["--help"])
    assert stop.value.code == 0
    assert commands == []
    assert "--task {derain,motion,defocus,denoise}" in capsys.readouterr().out


def test_iterations_of_a_run(load_script, monkeypatch, tmp_path):
    script = load_script("demo")
    monkeypatch.setattr(script, "ROOT", tmp_path)
    models = tmp_path / "experiments/demo/models"
    models.mkdir(parents=True)
    for name in ("net_g_90", "net_g_123", "net_g_latest", "net_g_best"):
        (models / f"{name}.safetensors").touch()
    assert script.iterations("demo") == 123


def test_gain_over_the_mean_of_two_views(load_script, tmp_path):
    script = load_script("demo")
    levels = {"lq_left": 20000, "lq_right": 20801, "restored": 20040, "gt": 20000}
    for name, level in levels.items():
        write_png(tmp_path / name / "0.png", np.full((8, 8, 3), level, np.uint16))
    script.write_mean_of_views(tmp_path)
    assert (
        read_image(tmp_path / "lq/0.png", bit_depth="as_stored") == 20400
    ).all()  # halves to even
    folders = [tmp_path / name for name in ("lq", "restored", "gt")]
    assert script.gain(*folders, "dpdd") == "44.29 dB -> 64.29 dB (+20.00)"


@pytest.mark.parametrize("folder", FOLDERS)
def test_option_files_belong_together(load_script, folder):
    (file,) = (ROOT / "options/train" / folder).glob("demo*.yml")
    train = load_options(TrainOptions, file)
    test = load_options(Options, ROOT / "options/test" / folder / file.name)
    assert train.network_g == test.network_g
    assert test.path.pretrain_network_g.startswith(f"experiments/{train.name}/")
    seen, unseen = (
        set(each.arguments()["files"]) for each in (train.datasets.train, test.datasets["test_1"])
    )
    assert not seen & unseen
    (demo,) = [each for each in load_script("demo").DEMOS.values() if each.folder == folder]
    assert test.val.protocols[0] == demo.protocol
