"""Runs with a time limit: how far their schedule and they themselves get."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
import yaml

from basicsr.options import TrainOptions, load_options
from basicsr.training import time_limit
from basicsr.training.run import Process
from basicsr.training.run_folder import RunFolder
from basicsr.training.time_limit import TrainingClock
from basicsr.training.trainer import train
from basicsr.utils.distributed import World
from basicsr.utils.interruptions import StopRequest, Watchdog


@pytest.fixture
def seconds(monkeypatch):
    """The time, as a list of one number."""
    now = [100.0]
    monkeypatch.setattr(time_limit, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_slow_run_skips_through_its_schedule(seconds):
    clock = TrainingClock(10.0, World())
    clock.start()
    places = []
    for iteration in range(3):
        places.append(clock.scheduled(iteration, 100))
        seconds[0] += 4.5
        clock.read()
    assert places == [0, 45, 90]
    assert clock.is_up
    assert clock.scheduled(3, 100) == 99


def test_a_fast_run_follows_its_schedule(seconds):
    clock = TrainingClock(10.0, World())
    clock.start()
    for iteration in range(100):
        assert clock.scheduled(iteration, 100) == iteration
        seconds[0] += 0.05
        clock.read()
    assert not clock.is_up


def test_time_is_counted_over_restarts(seconds):
    clock = TrainingClock(10.0, World())
    clock.seconds = 6.0  # of a training state
    seconds[0] += 50  # until the loop begins
    clock.start()
    seconds[0] += 3
    clock.read()
    assert (clock.seconds, clock.is_up) == (9.0, False)
    seconds[0] += 1
    clock.read()
    assert clock.is_up


def test_processor_time(monkeypatch):
    now = [3.0]
    monkeypatch.setattr(time_limit, "time", SimpleNamespace(process_time=lambda: now[0]))
    clock = TrainingClock(10.0, World(), "cpu")
    clock.start()
    now[0] += 4
    clock.read()
    assert (clock.seconds, clock.is_up) == (4.0, False)


class OtherProcess(World):
    """A process that is not the main one; the main one's clock says 7 s."""

    rank, size = 1, 2

    def __init__(self):
        pass

    def sum(self, values):
        assert list(values) == [0.0]
        return [7.0]


def test_the_main_process_decides():
    clock = TrainingClock(6.5, OtherProcess())
    clock.read()
    assert (clock.seconds, clock.is_up) == (7.0, True)


def test_a_run_ends_complete_when_its_time_is_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    readings = iter([0.0, *(10.0 * step for step in range(100))])  # built, started, steps
    monkeypatch.setattr(time_limit, "time", SimpleNamespace(monotonic=lambda: next(readings)))
    images = {"type": "GaussianNoiseDataset", "dataroot_gt": "skimage", "sigma": 25}
    content = {
        "name": "boxed",
        "model_type": "RestorationModel",
        "device": "cpu",
        "network_g": {"type": "PRN_r", "recurrent_iter": 1},
        "datasets": {
            "train": {
                **images,
                "name": "train",
                "files": ["cell.png"],
                "patches": [{"size": 16, "batch_size": 1, "iters": 1000}],
                "num_worker_per_gpu": 0,
            },
            "val": {**images, "name": "val", "files": ["color.png"]},
        },
        "train": {
            "total_iter": 1000,
            "time_limit": 50,
            "optim_g": {"type": "AdamW", "lr": 1e-3},
            "scheduler": {"type": "CosineAnnealingRestartLR", "periods": [1000]},
            "losses": [{"type": "L1Loss"}],
        },
        "val": {"val_freq": 1000, "protocols": ["rgb"], "save_img": False},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 1000, "use_tb_logger": False},
    }
    (tmp_path / "train.yml").write_text(yaml.safe_dump(content))

    def run(**more):
        with Watchdog(100) as watchdog:
            settings = load_options(TrainOptions, "train.yml")
            train(settings, Process(torch.device("cpu"), World(), StopRequest(), watchdog), **more)

    run()
    folder = tmp_path / "experiments" / "boxed"
    state = RunFolder(folder, keep=3).latest_state()
    assert (state["iteration"], state["seconds"], state["validation_due"]) == (5, 50.0, False)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rates = [line["train/learning_rate"] for line in lines if "train/learning_rate" in line]
    decayed = [0.5e-3 * (1 + math.cos(math.pi * step / 5)) for step in range(5)]
    assert rates == pytest.approx(decayed)
    assert [line["iteration"] for line in lines if "val/rgb_psnr" in line] == [5]
    assert (folder / "models" / "net_g_5.safetensors").exists()

    run(auto_resume=True)  # complete
    assert RunFolder(folder, keep=3).latest_state()["iteration"] == 5
