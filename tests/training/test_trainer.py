"""Small training runs in this process: channels, validation sets, and reading the device late."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import yaml

from basicsr.io.images import write_png
from basicsr.options import TrainOptions, load_options
from basicsr.training import fit, trainer
from basicsr.training.build import build_validators
from basicsr.training.check import check
from basicsr.training.run import Process
from basicsr.training.run_folder import RunFolder
from basicsr.training.trainer import Trainer, train
from basicsr.utils.distributed import World
from basicsr.utils.errors import NonFiniteError, OptionsError, Stopped, UserError
from basicsr.utils.interruptions import StopRequest, Watchdog
from basicsr.utils.provenance import device_name

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
    "dual view": {"dataroot_lq": ["lq", "right"], "bit_depth": 16},
}
NETWORKS = {"gray": GRAY, "dual view": DUAL}
ITERATIONS = 8


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


@pytest.fixture(params=[1, 3, 10])
def read_interval(request, monkeypatch):
    """Steps after which the device is read."""
    monkeypatch.setitem(trainer.READ_INTERVAL, "cpu", request.param)
    return request.param


def options(case, *force):
    images = {"name": "pairs", "type": "PairedImageDataset", "dataroot_gt": "gt", **SETS[case]}
    content = {
        "name": "run",
        "model_type": "RestorationModel",
        "device": "cpu",
        "network_g": NETWORKS[case],
        "datasets": {
            "train": {
                **images,
                "patches": [{"size": 16, "batch_size": 2, "iters": ITERATIONS}],
                "num_worker_per_gpu": 0,
            },
            "val": images,
            "val_2": {**images, "protocols": ["dtpnet", "rgb"]},
        },
        "train": {
            "total_iter": ITERATIONS,
            "optim_g": {"type": "AdamW", "lr": 1e-3},
            "scheduler": {"type": "MultiStepLR", "milestones": [5]},
            "losses": [{"type": "L1Loss"}],
            "ema_decay": 0.9,
        },
        "val": {"val_freq": ITERATIONS, "protocols": ["rgb"], "best": "rgb/ssim"},
        "logger": {"print_freq": 5, "save_checkpoint_freq": 4, "use_tb_logger": False},
    }
    with open("train.yml", "w") as file:
        yaml.safe_dump(content, file)
    return load_options(TrainOptions, "train.yml", force)


def run(settings, **more):
    with Watchdog(100) as watchdog:
        train(settings, Process(CPU, World(), StopRequest(), watchdog), **more)


def metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]


@pytest.fixture
def straight(folder):
    """An uninterrupted run that reads the device after every step."""
    run(options("dual view", "name=straight"))
    return folder / "experiments" / "straight"


def test_several_validation_sets(straight):
    scores = [line for line in metrics(straight) if line["iteration"] == ITERATIONS][1:]
    assert [sorted(line) for line in scores] == [
        ["iteration", "val/rgb_psnr", "val/rgb_ssim"],
        ["iteration", "val_2/dtpnet_psnr", "val_2/dtpnet_ssim"],
        ["iteration", "val_2/rgb_psnr", "val_2/rgb_ssim"],
    ]
    assert scores[0]["val/rgb_psnr"] == scores[2]["val_2/rgb_psnr"]  # the same images
    best = RunFolder(straight, keep=3).latest_state()["best"]
    assert best == {
        "iteration": ITERATIONS,
        "criterion": "rgb/ssim",
        "psnr": scores[0]["val/rgb_psnr"],
        "ssim": scores[0]["val/rgb_ssim"],
    }
    for name in ("00000008.png", "00000008_val_2.png"):
        picture = cv2.imread(str(straight / "samples" / name), cv2.IMREAD_UNCHANGED)
        assert (picture.shape, picture.dtype) == ((33, 120, 3), np.uint8)
    restored = straight / "visualization/val_2/restored/0.png"
    assert cv2.imread(str(restored), cv2.IMREAD_UNCHANGED).dtype == np.uint16


def test_reading_the_device_late_changes_nothing(straight, folder, read_interval):
    run(options("dual view"))
    late = folder / "experiments" / "run"
    for name in ("net_g_4", "net_g_8", "net_g_best"):
        file = f"models/{name}.safetensors"
        assert (late / file).read_bytes() == (straight / file).read_bytes()
    assert metrics(late) == metrics(straight)


def test_a_request_to_stop_is_followed_at_once_by_a_single_process(
    straight, folder, read_interval, monkeypatch
):
    step = Trainer.step

    def asked_at_the_second(self, iteration):
        step(self, iteration)
        if iteration == 2:
            self.run.process.stop.name = "SIGTERM"

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", asked_at_the_second)
        with pytest.raises(Stopped, match="SIGTERM"):
            run(options("dual view"))
    stopped = folder / "experiments" / "run"
    assert [file.stem for file in (stopped / "training_states").glob("*.json")] == ["00000002"]
    run(options("dual view"), auto_resume=True)
    file = "models/net_g_8.safetensors"
    assert (stopped / file).read_bytes() == (straight / file).read_bytes()
    assert metrics(stopped) == metrics(straight)


def test_the_abort_names_the_step_however_late_it_is_noticed(folder, read_interval):
    """The first update makes the weights infinite, the three steps after it are skipped."""
    settings = options("gray", "train:optim_g={type: SGD, lr: 1000}", "train:nonfinite_limit=3")
    object.__setattr__(settings.train.optim_g, "lr", 1e38)  # option files have a limit
    with pytest.raises(UserError, match=r"iteration 4: 3 steps in a row .*00000004_rank0.npz"):
        run(settings)
    saved = np.load(folder / "experiments/run/nonfinite/00000004_rank0.npz")
    assert saved["lq"].shape == (2, 1, 16, 16)
    assert not list((folder / "experiments/run").glob("training_states/*.json"))


def test_validation_sets_without_ground_truth_need_protocols_without(folder):
    noise = np.random.default_rng(0).integers(0, 256, (192, 192, 3), np.uint8)  # NIQE's smallest
    write_png(folder / "real" / "0.png", noise)

    def validators(protocols):
        real = f"{{name: a, type: ImageFolderDataset, dataroot_lq: real, protocols: [{protocols}]}}"
        return build_validators(options("gray", f"datasets:val_2={real}"), folder)

    assert [each.key for each in validators("niqe")] == ["val", "val_2"]
    with pytest.raises(OptionsError, match=r"datasets.val_2: ImageFolderDataset has no ground tr"):
        validators("niqe, rgb")


@pytest.mark.parametrize(("case", "channels"), [("gray", 1), ("dual view", 6)])
def test_check_prints_the_shape_of_a_batch(folder, case, channels, capsys):
    check(options(case), CPU)
    printed = capsys.readouterr().out
    assert f"first batch: (2, {channels}, 16, 16)" in printed
    assert "datasets.val_2: 3 validation images" in printed
    assert "GMACs forward" in printed
    assert not (folder / "experiments").exists()


def test_a_loss_that_does_not_suit_the_channels(folder):
    settings = options("gray", "train:losses=[{type: MaskLoss}]")
    with pytest.raises(OptionsError, match=r"train.losses: MaskLoss needs 1 channels and a mask"):
        check(settings, CPU)


def test_a_data_set_that_does_not_fit_leaves_no_folder(folder):
    settings = options("gray", "datasets:val_2:color=rgb")
    with pytest.raises(OptionsError, match=r"datasets.val_2: PairedImageDataset has lq of 3"):
        run(settings)
    assert not (folder / "experiments").exists()


DIVERGING = ("train:scheduler={type: MultiStepLR, milestones: [4], gamma: 1.0e42}",)


def test_weights_that_are_not_finite_are_neither_saved_nor_validated(folder):
    often = ("logger:save_checkpoint_freq=1", "val:val_freq=5", "val:save_img=false")
    with pytest.raises(NonFiniteError, match=r"^iteration 5: weights or optimizer .*not finite"):
        run(options("gray", *DIVERGING, *often))
    states = sorted(file.name for file in (folder / "experiments/run/training_states").iterdir())
    assert states[-1] == "00000004.state"
    assert not any("val/rgb_psnr" in line for line in metrics(folder / "experiments/run"))
    run(options("gray", *often), auto_resume=True, force=True)
    assert metrics(folder / "experiments/run")[-1]["iteration"] == ITERATIONS


def test_outputs_that_are_not_finite_are_no_score(folder, monkeypatch, capsys):
    def overflowing(self, image):
        raise NonFiniteError("restored to NaN")

    monkeypatch.setattr("basicsr.training.validation.Restorer.__call__", overflowing)
    run(options("gray"))
    assert "validation at 8: val: no score: 0: restored to NaN" in capsys.readouterr().out
    assert not list((folder / "experiments/run").rglob("*best*"))
    assert (folder / "experiments/run/models/net_g_8.safetensors").exists()


@pytest.mark.parametrize(
    ("seconds", "sources"),
    [
        (1e6, ("measured on 4, times 1", "measured on 2, times 1")),
        (0, ("measured on 1, times 4", "scaled from 1 of 16 by multiply-accumulates")),
    ],
)
def test_check_measures_steps_that_are_not_too_long(folder, capsys, monkeypatch, seconds, sources):
    monkeypatch.setattr(fit, "MEASURED_SECONDS", seconds)
    stages = "[{size: 16, batch_size: 4, iters: 6}, {size: 32, batch_size: 2, iters: 2}]"
    check(options("dual view", f"datasets:train:patches={stages}"), CPU, 1000.0)
    lines = capsys.readouterr().out.splitlines()
    small, large = (next(x for x in lines if f"patches of {n}, " in x) for n in (16, 32))
    assert "4 a step" in small
    assert "at most 4 fit at a time: accumulation_steps 1" in small
    assert f"({sources[0]})" in small
    assert f"({sources[1]})" in large
    assert lines[-1].startswith("fits with accumulation_steps: 1 (")
    assert not (folder / "experiments").exists()


def test_check_reports_the_shortest_of_several_steps(folder, capsys, monkeypatch):
    durations = {
        "optimize_parameters": itertools.cycle([0.1, 4.0, 1.0, 0.25, 0.5]),
        "compute_gradients": itertools.cycle([3.0, 0.125, 1.0, 0.5]),
    }
    taken = SimpleNamespace(rescaled=False)
    monkeypatch.setattr(fit, "_seconds", lambda part, *_: (next(durations[part.__name__]), taken))
    check(options("dual view"), CPU, 1000.0)
    assert " 0.25 s an iteration (measured on " in capsys.readouterr().out
    assert next(durations["optimize_parameters"]) == 0.1  # the untimed one, and four were timed
    assert next(durations["compute_gradients"]) > 2  # four were timed


def test_check_counts_the_optimizer_once_for_all_patches(folder, capsys, monkeypatch):
    monkeypatch.setattr(fit, "MEASURED_SECONDS", 0)
    durations = {"optimize_parameters": 3.0, "compute_gradients": 1.0}
    taken = SimpleNamespace(rescaled=False)
    monkeypatch.setattr(fit, "_seconds", lambda part, *_: (durations[part.__name__], taken))
    check(options("dual view", "datasets:train:patches=[{size: 16, batch_size: 4, iters: 8}]"), CPU)
    assert " 6 s an iteration (measured on 1, times 4)" in capsys.readouterr().out


def test_check_says_that_a_small_card_does_not_fit(folder, capsys):
    check(options("dual view"), CPU, 0.001)
    lines = capsys.readouterr().out.splitlines()
    assert "activation_checkpointing: blocks" in lines[-4]
    assert lines[-1].startswith("does not fit: ")


def test_an_emulated_precision_is_replaced_and_logged(folder, set_units):
    set_units("fp32")
    run(options("gray", "train:precision=fp16"))
    log = (folder / "experiments" / "run" / "train.log").read_text()
    assert f"iterations 1 to 8 on {device_name(CPU)}, in fp32" in log
    assert "loss_scale" not in log


def test_automatic_accumulation_is_recorded_and_kept(folder, monkeypatch, straight):
    """An interrupted run goes on with its number, whatever memory is free then."""
    monkeypatch.setattr(fit, "memory_budget", lambda device: 1e15)
    automatic = ("train:accumulation_steps=auto", "name=automatic")
    step = Trainer.step

    def asked_at_the_fourth(self, iteration):
        step(self, iteration)
        if iteration == 4:
            self.run.process.stop.name = "SIGTERM"

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", asked_at_the_fourth)
        with pytest.raises(Stopped):
            run(options("dual view", *automatic))
    own = folder / "experiments" / "automatic"
    assert yaml.safe_load((own / "options.yml").read_text())["train"]["accumulation_steps"] == 1
    monkeypatch.setattr(fit, "memory_budget", lambda device: 0)
    run(options("dual view", *automatic), auto_resume=True)
    automatic_state, by_hand = (RunFolder(each, keep=3).latest_state() for each in (own, straight))
    assert automatic_state["identity"]["options"]["train"]["accumulation_steps"] == 1
    for name, weight in by_hand["network"].items():
        assert torch.equal(automatic_state["network"][name], weight)


def test_automatic_accumulation_without_enough_memory_is_an_error(folder, monkeypatch):
    monkeypatch.setattr(fit, "memory_budget", lambda device: 0)
    with pytest.raises(UserError, match=r"^train\.accumulation_steps: auto: the batches do not"):
        run(options("dual view", "train:accumulation_steps=auto"))
    assert list((folder / "experiments").iterdir()) in ([], [folder / "experiments" / ".run.lock"])


@pytest.mark.parametrize(("saved", "chosen"), [(2, 2), (3, 1)])
def test_a_saved_number_is_kept_if_it_still_divides_the_batches(folder, monkeypatch, saved, chosen):
    monkeypatch.setattr(fit, "_measured_accumulation", lambda *_: 1)
    state = {"identity": {"options": {"train": {"accumulation_steps": saved}}}}
    automatic = options("gray", "train:accumulation_steps=auto")
    resumed = fit.choose_accumulation(automatic, {}, CPU, World(), state)
    assert resumed.train.accumulation_steps == chosen
    by_hand = options("gray", "train:accumulation_steps=1")
    assert fit.choose_accumulation(by_hand, {}, CPU, World(), state) is by_hand


def test_automatic_accumulation_of_sharded_networks_is_refused(folder):
    with pytest.raises(OptionsError, match="give a number with sharded: true"):
        options("gray", "train:accumulation_steps=auto", "train:sharded=true")
