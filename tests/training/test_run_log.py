import json
import logging
import resource
import sys
import types

import numpy as np
import pytest
import torch

from basicsr.training.run_log import RunLog, TrainingReport
from basicsr.utils.errors import OptionsError
from basicsr.utils.logs import start_logging

CPU = torch.device("cpu")


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_log_drops_what_is_done_again(tmp_path):
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


def test_a_validation_that_was_cut_short_is_logged_once(tmp_path):
    log = RunLog(tmp_path, 0, tensorboard=False)
    log.scalars(6, {"train/loss": 1.0})
    log.scalars(6, {"val/matlab_y_psnr": 30.0})
    log.file.write_bytes(log.file.read_bytes() + b"\0\0{torn\n")
    RunLog(tmp_path, 6, tensorboard=False, validated=False)
    assert lines(tmp_path) == [{"iteration": 6, "train/loss": 1.0}]


def test_a_report_tells_means_since_the_last_one(tmp_path, caplog):
    log = RunLog(tmp_path, 0, tensorboard=False)
    report = TrainingReport(log, CPU, total=4, sums={})
    logging.getLogger("basicsr").propagate = True
    with caplog.at_level(logging.INFO, "basicsr"):
        for value in (1.0, 2.0, 3.0, 6.0):
            report.data_arrived()
            report.step_done({"loss": torch.tensor(value)}, images=2)
            if value in (2.0, 6.0):
                report.tell(2 if value == 2.0 else 4, learning_rate=0.1)
    assert [line["train/loss"] for line in lines(tmp_path)] == [1.5, 4.5]
    assert lines(tmp_path)[0]["train/learning_rate"] == 0.1
    assert "iteration 2/4  loss 1.50000  lr 0.1" in caplog.text
    assert "ETA 0:00:00" in caplog.text


def test_a_report_is_taken_up_where_it_was_left(tmp_path):
    log = RunLog(tmp_path, 0, tensorboard=False)
    first = TrainingReport(log, CPU, 10, {})
    first.step_done({"loss": torch.tensor(4.0)}, 1)
    second = TrainingReport(log, CPU, 10, first.sums())
    second.step_done({"loss": torch.tensor(8.0)}, 1)
    second.tell(2, 0.1)
    assert lines(tmp_path)[0]["train/loss"] == 6.0


def test_a_skipped_step_counts_in_no_mean(tmp_path):
    report = TrainingReport(RunLog(tmp_path, 0, tensorboard=False), CPU, 10, {})
    report.step_done({"loss": torch.tensor(4.0)}, 1)
    report.step_done({}, 1)
    report.tell(2, 0.1, skipped_steps=1)
    (line,) = lines(tmp_path)
    assert (line["train/loss"], line["train/skipped_steps"]) == (4.0, 1)


def test_only_skipped_steps_have_no_mean(tmp_path):
    report = TrainingReport(RunLog(tmp_path, 0, tensorboard=False), CPU, 10, {})
    report.step_done({}, 1)
    report.tell(1, 0.1)
    assert "train/loss" not in lines(tmp_path)[0]


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


def test_a_console_that_is_a_full_file_ends_nothing(tmp_path, monkeypatch):
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


def test_tensorboard_goes_on_in_a_new_file_after_a_full_disk(tmp_path, monkeypatch):
    log = RunLog(tmp_path, 0, tensorboard=True)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log._events._writer, "add_scalar", full)
    log.scalars(1, {"loss": 1.0})
    log.scalars(2, {"loss": 2.0})
    log.close()
    assert len(list((tmp_path / "tb_logger").iterdir())) == 2


class FakeWandb(types.ModuleType):
    """Keeps what it is told."""

    Error = RuntimeError

    def __init__(self):
        super().__init__("wandb")
        self.told = []

    def init(self, **settings):
        self.settings = settings
        return self

    def log(self, values, step):
        self.told.append((step, values))

    def finish(self):
        self.told.append("finished")

    def Image(self, image):
        return image.shape


def test_weights_and_biases_gets_what_tensorboard_gets(tmp_path, monkeypatch):
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    log = RunLog(tmp_path / "run", 0, tensorboard=False, wandb_project="rain")
    log.scalars(5, {"train/loss": 0.25})
    log.picture(5, "rainy", np.zeros((4, 6, 3), np.uint8))
    log.close()
    assert wandb.settings["project"] == "rain"
    assert wandb.told == [(5, {"train/loss": 0.25}), (5, {"rainy": (4, 6, 3)}), "finished"]


def test_weights_and_biases_that_refuse(tmp_path, monkeypatch):
    wandb = FakeWandb()
    monkeypatch.setattr(FakeWandb, "init", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(FakeWandb, "Error", ZeroDivisionError)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    with pytest.raises(OptionsError, match=r"division by zero .WANDB_MODE=offline"):
        RunLog(tmp_path / "run", 0, tensorboard=False, wandb_project="rain")


def test_weights_and_biases_that_are_not_there(tmp_path, monkeypatch):
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
