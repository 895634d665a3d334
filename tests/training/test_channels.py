"""Training on gray, dual-view and 16-bit images, from the files to the checkpoint."""

from __future__ import annotations

import json
import types

import cv2
import numpy as np
import pytest
import torch
import yaml

from basicsr.archs import build_network
from basicsr.data import build_dataset
from basicsr.models.fitting import require_fitting
from basicsr.options import TrainOptions, load_options
from basicsr.training.check import check
from basicsr.training.run import Process
from basicsr.training.trainer import train
from basicsr.utils.distributed import World
from basicsr.utils.errors import OptionsError
from basicsr.utils.interruptions import StopRequest, Watchdog

CPU = torch.device("cpu")
RESTORMER = {
    "type": "Restormer",
    "dim": 8,
    "num_blocks": [1, 1, 1, 1],
    "num_refinement_blocks": 1,
    "heads": [1, 1, 1, 1],
}
GRAY = {**RESTORMER, "inp_channels": 1, "out_channels": 1}
DUAL = {**RESTORMER, "inp_channels": 6, "dual_pixel_task": True}
SETS = {
    "gray": {"dataroot_lq": "lq", "color": "gray"},
    "dual view": {"dataroot_lq": ["lq", "right"]},
    "16 bits": {"dataroot_lq": "lq", "bit_depth": 16},
}
NETWORKS = {"gray": GRAY, "dual view": DUAL, "16 bits": RESTORMER}
CHANNELS = {"gray": (1, 1), "dual view": (6, 3), "16 bits": (3, 3)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with pairs of 16-bit images of 40 x 33 pixels, and a right view of each."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("lq", "right", "gt"):
        (tmp_path / name).mkdir()
        for i in range(3):
            image = rng.integers(0, 65536, (33, 40, 3), dtype=np.uint16)
            cv2.imwrite(str(tmp_path / name / f"{i}.png"), image)
    return tmp_path


def options(case, *force, losses=({"type": "L1Loss"},)):
    images = {"name": "pairs", "type": "PairedImageDataset", "dataroot_gt": "gt", **SETS[case]}
    content = {
        "name": "run",
        "model_type": "RestorationModel",
        "device": "cpu",
        "network_g": NETWORKS[case],
        "datasets": {
            "train": {
                **images,
                "patches": [{"size": 16, "batch_size": 2, "iters": 4}],
                "num_worker_per_gpu": 0,
            },
            "val": images,
            "val_2": {**images, "protocols": ["dtpnet", "rgb"]},
        },
        "train": {
            "total_iter": 4,
            "optim_g": {"type": "AdamW", "lr": 1e-3},
            "scheduler": {"type": "MultiStepLR", "milestones": [2]},
            "losses": list(losses),
        },
        "val": {"val_freq": 4, "protocols": ["rgb"]},
        "logger": {"print_freq": 2, "save_checkpoint_freq": 2, "use_tb_logger": False},
    }
    with open("train.yml", "w") as file:
        yaml.safe_dump(content, file)
    return load_options(TrainOptions, "train.yml", force)


def run(settings, **more):
    with StopRequest() as stop, Watchdog(100) as watchdog:
        train(settings, Process(CPU, World(), stop, watchdog), **more)


@pytest.mark.parametrize("case", SETS)
def test_a_run_to_its_end_and_resumed(folder, case):
    run(options(case))
    experiment = folder / "experiments" / "run"
    straight = (experiment / "models" / "net_g_4.safetensors").read_bytes()
    lines = [json.loads(line) for line in (experiment / "metrics.jsonl").read_text().splitlines()]
    assert {"val/rgb_psnr", "val_2/dtpnet_psnr", "val_2/rgb_psnr"} <= {
        k for li in lines for k in li
    }
    for name in ("00000004.png", "00000004_val_2.png"):
        picture = cv2.imread(str(experiment / "samples" / name), cv2.IMREAD_UNCHANGED)
        assert picture.shape == (33, 120, 3)
        assert picture.dtype == np.uint8
    experiment.rename(folder / "experiments" / "straight")

    resume_state = "path:resume_state=experiments/straight/training_states/00000002.state"
    run(options(case, resume_state))
    assert (experiment / "models" / "net_g_4.safetensors").read_bytes() == straight


@pytest.mark.parametrize("case", SETS)
def test_check_names_the_shape_of_a_batch(folder, case, capsys):
    check(options(case), CPU)
    printed = capsys.readouterr().out
    assert f"first batch: (2, {CHANNELS[case][0]}, 16, 16)" in printed
    assert "datasets.val_2: 3 validation images" in printed
    assert "GMACs forward" in printed


def test_a_loss_that_does_not_suit_the_channels_is_one_line(folder, capsys):
    with pytest.raises(OptionsError, match=r"train.losses: MaskLoss needs 1 channels and a mask"):
        check(options("gray", losses=[{"type": "MaskLoss"}]), CPU)


def test_data_set_and_network_that_do_not_fit(folder):
    network = build_network(RESTORMER)
    images = {"type": "PairedImageDataset", "dataroot_gt": "gt", **SETS["dual view"]}
    with pytest.raises(OptionsError) as caught:
        require_fitting(network, build_dataset(images), "datasets.val_2")
    assert str(caught.value) == (
        "datasets.val_2: PairedImageDataset has lq of 6 and gt of 3 channels, but Restormer maps "
        "3 to 3; change the data set, or network_g"
    )
    real = types.SimpleNamespace(lq_channels=1, gt_channels=1, has_gt=False)
    with pytest.raises(OptionsError, match="has lq of 1 channels, but Restormer maps 3 to 3;"):
        require_fitting(network, real, "datasets.test_1")
    require_fitting(build_network(DUAL), build_dataset(images), "datasets.train")


def test_a_run_whose_data_do_not_fit_leaves_no_folder(folder):
    settings = options("gray", "datasets:val_2:color=rgb")
    with pytest.raises(OptionsError, match=r"datasets.val_2: PairedImageDataset has lq of 3"):
        run(settings)
    assert not (folder / "experiments").exists()
