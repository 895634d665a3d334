import json
import logging
import resource
import sys
import types

import numpy as np
import pytest
import torch

from basicsr.training.run_log import RunLog
from basicsr.utils.errors import OptionsError
from basicsr.utils.logs import start_logging


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_log_drops_later_iterations(tmp_path):
    log = RunLog(tmp_path, 0, tensorboard=False)
    for iteration in (10, 20, 30):
        log.scalars(iteration, {"loss": iteration / 10})
    with log.file.open("a") as file:
        file.write('{"iteration": 40, "lo')  # killed while writing
    RunLog(tmp_path, 20, tensorboard=False).scalars(30, {"loss": 9.0})
    assert lines(tmp_path) == [
        {"iteration": 10, "loss": 1.0},
        {"iteration": 20, "loss": 2.0},
        {"iteration": 30, "loss": 9.0},
    ]


def test_scores_of_an_interrupted_validation_are_dropped(tmp_path):
    log = RunLog(tmp_path, 0, tensorboard=False)
    log.scalars(6, {"train/loss": 1.0})
    log.scalars(6, {"val/matlab_y_psnr": 30.0})
    log.scalars(6, {"val_2/rgb_psnr": 31.0})
    log.file.write_bytes(log.file.read_bytes() + b"\0\0{torn\n")
    RunLog(tmp_path, 6, tensorboard=False, validated=False)
    assert lines(tmp_path) == [{"iteration": 6, "train/loss": 1.0}]


def test_a_full_disk_makes_metrics_wait(tmp_path, caplog):
    logging.getLogger("basicsr").propagate = True
    log = RunLog(tmp_path, 0, tensorboard=False)
    log.scalars(1, {"loss": 1.0})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.file.stat().st_size + 10, hard))
    try:
        log.scalars(2, {"loss": 2.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "metrics wait in memory" in caplog.text
    assert [line["iteration"] for line in lines(tmp_path)] == [1]
    log.scalars(3, {"loss": 3.0})
    assert [line["iteration"] for line in lines(tmp_path)] == [1, 2, 3]


def test_a_console_on_a_full_disk_does_not_end_a_run(tmp_path, monkeypatch):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (tmp_path / "slurm.out").open("w", buffering=1) as console:
        monkeypatch.setattr(sys, "stdout", console)
        logger = start_logging()
        logger.info("before")
        resource.setrlimit(resource.RLIMIT_FSIZE, (40, hard))
        try:
            logger.info("the disk is full")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        logger.handlers.clear()
    assert "before" in (tmp_path / "slurm.out").read_text()


def test_tensorboard_continues_in_a_new_file_after_a_full_disk(tmp_path, monkeypatch):
    log = RunLog(tmp_path, 0, tensorboard=True)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log._events._writer, "add_scalar", full)
    log.scalars(1, {"loss": 1.0})
    log.scalars(2, {"loss": 2.0})
    log.close()
    assert len(list((tmp_path / "tb_logger").iterdir())) == 2


class FakeWandb(types.ModuleType):
    """Stand-in for the package, which keeps what is logged."""

    Error = RuntimeError

    def __init__(self):
        super().__init__("wandb")
        self.logged = []

    def init(self, **settings):
        self.settings = settings
        return self

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.logged.append("finished")

    def Image(self, image):
        return image.shape


def test_weights_and_biases_gets_scalars_and_pictures(tmp_path, monkeypatch):
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    log = RunLog(tmp_path / "run", 0, tensorboard=False, wandb_project="rain")
    log.scalars(5, {"train/loss": 0.25})
    log.picture(5, "rainy", np.zeros((4, 6, 3), np.uint8))
    log.close()
    assert wandb.settings["project"] == "rain"
    assert wandb.logged == [(5, {"train/loss": 0.25}), (5, {"rainy": (4, 6, 3)}), "finished"]


def test_a_failed_start_of_weights_and_biases(tmp_path, monkeypatch):
    wandb = FakeWandb()
    monkeypatch.setattr(FakeWandb, "init", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(FakeWandb, "Error", ZeroDivisionError)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    with pytest.raises(OptionsError, match=r"division by zero .WANDB_MODE=offline"):
        RunLog(tmp_path / "run", 0, tensorboard=False, wandb_project="rain")


def test_weights_and_biases_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(OptionsError, match="pip install wandb"):
        RunLog(tmp_path, 0, tensorboard=False, wandb_project="rain")


def test_pictures_and_scalars_reach_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = RunLog(tmp_path, 0, tensorboard=True)
    log.scalars(5, {"train/loss": 0.25})
    log.picture(5, "rainy", torch.zeros(4, 6, 3, dtype=torch.uint8).numpy())
    log.close()
    events = EventAccumulator(str(tmp_path / "tb_logger"))
    events.Reload()
    (scalar,) = events.Scalars("train/loss")
    assert (scalar.step, scalar.value) == (5, 0.25)
    (image,) = events.Images("rainy")
    assert (image.step, image.height, image.width) == (5, 4, 6)
