"""Means of losses and timings between two log lines."""

import json
import logging

import torch

from basicsr.training.report import TrainingReport
from basicsr.training.run_log import RunLog

CPU = torch.device("cpu")
GOOD, SKIPPED = torch.tensor(True), torch.tensor(False)


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_report_logs_means_since_the_last_one(tmp_path, caplog):
    log = RunLog(tmp_path, 0, tensorboard=False)
    report = TrainingReport(CPU, total_iter=4)
    logging.getLogger("basicsr").propagate = True
    with caplog.at_level(logging.INFO, "basicsr"):
        for value in (1.0, 2.0, 3.0, 6.0):
            report.data_arrived()
            report.step_done({"loss": torch.tensor(value)}, GOOD, images=2)
            if value in (2.0, 6.0):
                report.write(log, 2 if value == 2.0 else 4, 0.1, {})
    assert [line["train/loss"] for line in lines(tmp_path)] == [1.5, 4.5]
    assert lines(tmp_path)[0]["train/learning_rate"] == 0.1
    assert "iteration 2/4  loss 1.50000  lr 0.1" in caplog.text
    assert "ETA 0:00:00" in caplog.text


def test_a_report_continues_from_its_state(tmp_path):
    log = RunLog(tmp_path, 0, tensorboard=False)
    first = TrainingReport(CPU, 10)
    first.step_done({"loss": torch.tensor(4.0)}, GOOD, 1)
    second = TrainingReport(CPU, 10)
    second.load_state_dict(first.state_dict())
    second.step_done({"loss": torch.tensor(8.0)}, GOOD, 1)
    second.write(log, 2, 0.1, {})
    assert lines(tmp_path)[0]["train/loss"] == 6.0


def test_a_skipped_step_does_not_count_in_the_means(tmp_path):
    report = TrainingReport(CPU, 10)
    report.step_done({"loss": torch.tensor(4.0)}, GOOD, 1)
    report.step_done({"loss": torch.tensor(float("nan"))}, SKIPPED, 1)
    report.write(RunLog(tmp_path, 0, tensorboard=False), 2, 0.1, {"skipped_steps": 1})
    (line,) = lines(tmp_path)
    assert (line["train/loss"], line["train/skipped_steps"]) == (4.0, 1)


def test_skipped_steps_alone_have_no_means(tmp_path):
    report = TrainingReport(CPU, 10)
    report.step_done({"loss": torch.tensor(float("inf"))}, SKIPPED, 1)
    report.write(RunLog(tmp_path, 0, tensorboard=False), 1, 0.1, {})
    assert "train/loss" not in lines(tmp_path)[0]


def test_a_negative_loss_is_explained_once(caplog):
    report = TrainingReport(CPU, 10)
    logging.getLogger("basicsr").propagate = True
    with caplog.at_level(logging.INFO, "basicsr"):
        for iteration, value in enumerate((0.5, -0.5, -0.6), 1):
            report.step_done({"loss": torch.tensor(value)}, GOOD, 1)
            report.write(None, iteration, 0.1, {})
            assert caplog.text.count("a negative loss is right with PSNRLoss") == (value < 0)
