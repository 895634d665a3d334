"""The option files of Restormer, NAFNet, Histoformer and MPRNet, with their own keys and values."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from basicsr import options as schema
from basicsr.io.images import write_png
from basicsr.options import TrainOptions, load_options
from basicsr.training.run import Process
from basicsr.training.trainer import train
from basicsr.utils.distributed import World
from basicsr.utils.errors import OptionsError
from basicsr.utils.interruptions import StopRequest, Watchdog

OPTIONS = Path(__file__).parents[2] / "options/train"
CPU = torch.device("cpu")
DISK = {"type": "disk"}
LOADER = {
    "geometric_augs": True,
    "filename_tmpl": "{}",
    "io_backend": DISK,
    "use_shuffle": True,
    "num_worker_per_gpu": 8,
    "batch_size_per_gpu": 8,
    "mini_batch_sizes": [8, 5, 4, 2, 1, 1],
    "iters": [92000, 64000, 48000, 36000, 36000, 24000],
    "gt_size": 384,
    "gt_sizes": [128, 160, 192, 256, 320, 384],
    "dataset_enlarge_ratio": 1,
    "prefetch_mode": None,
}
PAIRED = {"type": "Dataset_PairedImage", "dataroot_gt": "gt", "dataroot_lq": "lq"}
DUAL = {
    "type": "Dataset_DefocusDeblur_DualPixel_16bit",
    "dataroot_gt": "gt16",
    "dataroot_lqL": "lq16",
    "dataroot_lqR": "right16",
}


def gaussian(channels: int, **sigma: Any) -> dict[str, Any]:
    folders = {"dataroot_gt": "gt", "dataroot_lq": "none"}
    return {"type": "Dataset_GaussianDenoising", "in_ch": channels, **sigma, **folders}


def restormer(
    train_set: dict[str, Any], val_set: dict[str, Any], use_image: bool, **network: Any
) -> dict[str, Any]:
    """Return the content of a file of Restormer's repository."""
    channels = network.get("inp_channels", 3)
    denoises = network.get("LayerNorm_type") == "BiasFree"
    return {
        "name": "theirs",
        "model_type": "ImageCleanModel",
        "scale": 1,
        "num_gpu": 8,
        "manual_seed": 100,
        "datasets": {
            "train": {"name": "TrainSet", **train_set, **LOADER},
            "val": {"name": "ValSet", **val_set, "io_backend": DISK},
        },
        "network_g": {
            "type": "Restormer",
            "inp_channels": channels,
            "out_channels": 3 if channels == 6 else channels,
            "dim": 48,
            "num_blocks": [4, 6, 6, 8],
            "num_refinement_blocks": 4,
            "heads": [1, 2, 4, 8],
            "ffn_expansion_factor": 2.66,
            "bias": False,
            "LayerNorm_type": "WithBias",
            "dual_pixel_task": False,
            **network,
        },
        "path": {"pretrain_network_g": None, "strict_load_g": True, "resume_state": None},
        "train": {
            "total_iter": 300000,
            "warmup_iter": -1,
            "use_grad_clip": True,
            "scheduler": {
                "type": "CosineAnnealingRestartCyclicLR",
                "periods": [92000, 208000],
                "restart_weights": [1, 1],
                "eta_mins": [0.0003, 0.000001],
            },
            "mixing_augs": {"mixup": denoises, "mixup_beta": 1.2, "use_identity": True},
            "optim_g": {"type": "AdamW", "lr": 3e-4, "weight_decay": 1e-4, "betas": [0.9, 0.999]},
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1, "reduction": "mean"},
        },
        "val": {
            "window_size": 8,
            "val_freq": 4e3,
            "save_img": False,
            "rgb2bgr": True,
            "use_image": use_image,
            "max_minibatch": 8,
            "metrics": {
                "psnr": {"type": "calculate_psnr", "crop_border": 0, "test_y_channel": False}
            },
        },
        "logger": {
            "print_freq": 1000,
            "save_checkpoint_freq": 4e3,
            "use_tb_logger": True,
            "wandb": {"project": None, "resume_id": None},
        },
        "dist_params": {"backend": "nccl", "port": 29500},
    }


def gaussian_file(channels: int, sigma: int | None) -> dict[str, Any]:
    level = {"sigma_type": "constant", "sigma_range": sigma}
    if sigma is None:
        level = {"sigma_type": "random", "sigma_range": [0, 50]}
    network = {"inp_channels": channels, "LayerNorm_type": "BiasFree"}
    val_set = gaussian(channels, sigma_test=sigma or 25)
    return restormer(gaussian(channels, **level), val_set, False, **network)


RESTORMERS = {
    "Motion_Deblurring/Restormer_GoPro": restormer(PAIRED, PAIRED, True),
    "Defocus_Deblurring/Restormer_DPDD_single": restormer(PAIRED, PAIRED, False),
    "Defocus_Deblurring/Restormer_DPDD_dual": restormer(
        DUAL, DUAL, False, inp_channels=6, dual_pixel_task=True
    ),
    "Denoising/Restormer_SIDD": restormer(PAIRED, PAIRED, False, LayerNorm_type="BiasFree"),
    **{
        f"Denoising/Restormer_{color}_{'blind' if sigma is None else f'sigma{sigma}'}": (
            gaussian_file(channels, sigma)
        )
        for color, channels in (("color", 3), ("gray", 1))
        for sigma in (None, 15, 25, 50)
    },
}
HISTOFORMER = copy.deepcopy(restormer(PAIRED, PAIRED, True))
HISTOFORMER["num_gpu"] = 4
HISTOFORMER["datasets"]["train"] |= {
    "mini_batch_sizes": [8, 5, 2, 1, 1],
    "iters": [92000, 84000, 56000, 36000, 32000],
    "gt_size": 362,
    "gt_sizes": [128, 160, 256, 320, 362],
}
HISTOFORMER["datasets"] |= {
    f"val_{name}": HISTOFORMER["datasets"]["val"] for name in ("snow_s", "snow_l", "raindrop")
}
del HISTOFORMER["datasets"]["val"]
HISTOFORMER["train"]["seq_opt"] = {"type": "Pearson"}

LMDB = {
    "type": "PairedImageDataset",
    "dataroot_gt": "gt.lmdb",
    "dataroot_lq": "lq.lmdb",
    "io_backend": {"type": "lmdb"},
}


def nafnet(val_key: str = "val", use_image: bool | None = None) -> dict[str, Any]:
    """Return the content of a training file of NAFNet's repository."""
    content = {
        "name": "NAFNet-GoPro-width64",
        "model_type": "ImageRestorationModel",
        "scale": 1,
        "num_gpu": 8,
        "manual_seed": 10,
        "datasets": {
            "train": {
                "name": "gopro-train",
                **LMDB,
                "filename_tmpl": "{}",
                "gt_size": 256,
                "use_flip": True,
                "use_rot": True,
                "use_shuffle": True,
                "num_worker_per_gpu": 8,
                "batch_size_per_gpu": 8,
                "dataset_enlarge_ratio": 1,
                "prefetch_mode": None,
            },
            val_key: {"name": "gopro-test", **LMDB},
        },
        "network_g": {
            "type": "NAFNetLocal",
            "width": 64,
            "enc_blk_nums": [1, 1, 1, 28],
            "middle_blk_num": 1,
            "dec_blk_nums": [1, 1, 1, 1],
        },
        "path": {"pretrain_network_g": None, "strict_load_g": True, "resume_state": None},
        "train": {
            "optim_g": {"type": "AdamW", "lr": 1e-3, "weight_decay": 1e-3, "betas": [0.9, 0.9]},
            "scheduler": {"type": "TrueCosineAnnealingLR", "T_max": 400000, "eta_min": 1e-7},
            "total_iter": 400000,
            "warmup_iter": -1,
            "pixel_opt": {"type": "PSNRLoss", "loss_weight": 1, "reduction": "mean"},
        },
        "val": {
            "val_freq": 2e4,
            "save_img": False,
            "metrics": {
                "psnr": {"type": "calculate_psnr", "crop_border": 0, "test_y_channel": False},
                "ssim": {"type": "calculate_ssim", "crop_border": 0, "test_y_channel": False},
            },
        },
        "logger": {
            "print_freq": 200,
            "save_checkpoint_freq": 5e3,
            "use_tb_logger": True,
            "wandb": {"project": None, "resume_id": None},
        },
        "dist_params": {"backend": "nccl", "port": 29500},
    }
    if use_image is not None:
        content["val"]["use_image"] = use_image
    return content


def mprnet(mode: str, **changes: Any) -> dict[str, Any]:
    """Return the content of MPRNet's training.yml for a task."""
    optim = {"BATCH_SIZE": 16, "NUM_EPOCHS": 80, "LR_INITIAL": 2e-4, "LR_MIN": 1e-6}
    training = {
        "VAL_AFTER_EVERY": 1,
        "RESUME": False,
        "TRAIN_PS": 128,
        "VAL_PS": 256,
        "TRAIN_DIR": "train",
        "VAL_DIR": "val",
        "SAVE_DIR": "./checkpoints",
    }
    return {
        "GPU": [0, 1, 2, 3],
        "VERBOSE": True,
        "MODEL": {"MODE": mode, "SESSION": "MPRNet"},
        "OPTIM": {key: changes.get(key, value) for key, value in optim.items()},
        "TRAINING": {key: changes.get(key, value) for key, value in training.items()},
    }


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file into the current folder, which has tiny images of every kind."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for kind in ("lq", "gt", "lq16", "right16", "gt16", "train/input", "train/target"):
        for number in range(3):
            peak, dtype = (65535, np.uint16) if kind.endswith("16") else (255, np.uint8)
            image = (rng.random((24, 28, 3)) * peak).astype(dtype)
            write_png(tmp_path / kind / f"{number}.png", image)
    (tmp_path / "val").symlink_to("train")

    def write_file(content: dict[str, Any]) -> Path:
        file = tmp_path / "theirs.yml"
        file.write_text(yaml.safe_dump(content))
        return file

    return write_file


def run(options: TrainOptions) -> None:
    with StopRequest() as stop, Watchdog(100) as watchdog:
        train(options, Process(CPU, World(), stop, watchdog))


@pytest.mark.parametrize("name", RESTORMERS)
def test_restormers_files_are_our_recipes(write, name):
    """They equal our option files, except for names, folders and validation."""
    theirs = load_options(TrainOptions, write(RESTORMERS[name]))
    ours = load_options(TrainOptions, OPTIONS / f"{name}.yml")
    assert theirs.network_g == ours.network_g
    assert theirs.train.model_dump(exclude={"scheduler"}) == ours.train.model_dump(
        exclude={"scheduler"}
    )
    scheduler = {**ours.train.scheduler.arguments(), "restart_weights": (1.0, 1.0)}
    assert theirs.train.scheduler.arguments() == scheduler
    folders = {"name", "dataroot", "layout", "dataroot_lq", "dataroot_gt"}
    assert theirs.datasets.train.model_dump(exclude=folders) == ours.datasets.train.model_dump(
        exclude=folders
    )
    assert theirs.manual_seed == ours.manual_seed


SMALL = [
    "num_gpu=0",
    "network_g:dim=8",
    "network_g:num_blocks=[1,1,1,1]",
    "network_g:num_refinement_blocks=1",
    "network_g:heads=[1,1,1,1]",
    "train:total_iter=2",
    "datasets:train:gt_size=16",
    "datasets:train:batch_size_per_gpu=2",
    "datasets:train:num_worker_per_gpu=0",
    "val:val_freq=2",
]


@pytest.mark.parametrize("name", RESTORMERS)
def test_restormers_files_run(write, name, tmp_path):
    options = load_options(TrainOptions, write(RESTORMERS[name]), SMALL)
    assert options.device == "cpu"
    run(options)
    metrics = (tmp_path / "experiments/theirs/metrics.jsonl").read_text()
    protocol = "rgb" if "GoPro" in name else "sidd"  # use_image: false
    assert f"val/{protocol}_psnr" in metrics


def test_levels_of_noise_to_choose_from(write):
    content = copy.deepcopy(gaussian_file(3, 25))
    content["datasets"]["train"] |= {"sigma_type": "choice", "sigma_range": [15, 25, 50]}
    train_set = load_options(TrainOptions, write(content)).datasets.train.arguments()
    assert (train_set["sigma"], train_set["sigma_choices"]) == (None, (15, 25, 50))


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("sigma_range=25", "datasets.train.sigma_range: 25 does not suit a random sigma"),
        ("sigma_type=constant", "datasets.train.sigma_range: [0, 50] does not suit a constant si"),
        ("in_ch=4", "datasets.train.in_ch: 4 is not supported: use 1 or 3"),
    ],
)
def test_wrong_noise_is_an_error(write, assignment, message):
    file = write(gaussian_file(3, None))
    with pytest.raises(OptionsError) as caught:
        load_options(TrainOptions, file, [f"datasets:train:{assignment}"])
    assert str(caught.value).startswith(f"{file}: {message}")


def test_histoformers_file_is_translated_except_for_its_network(write):
    theirs = load_options(TrainOptions, write(HISTOFORMER))
    assert [loss.model_dump() for loss in theirs.train.losses] == [
        {"type": "L1Loss", "weight": 1.0, "stage": -1},
        {"type": "PearsonLoss", "weight": 1.0, "stage": -1},
    ]
    assert [row.batch_size for row in theirs.datasets.train.patches] == [32, 20, 8, 4, 4]
    assert list(theirs.datasets.validation) == ["val", "val_2", "val_3"]
    file = write({**HISTOFORMER, "network_g": {"type": "Histoformer", "dim": 36}})
    with pytest.raises(OptionsError) as caught:
        load_options(TrainOptions, file)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{file}: network_g: no such type 'Histoformer'")


def test_further_losses(write):
    """fft_opt as in BasicSR's forks, and BasicSR's perceptual loss."""
    content = copy.deepcopy(RESTORMERS["Motion_Deblurring/Restormer_GoPro"])
    content["train"]["fft_opt"] = {"type": "FFTLoss", "loss_weight": 0.05, "reduction": "mean"}
    content["train"]["perceptual_opt"] = {
        "type": "PerceptualLoss",
        "layer_weights": {"conv1_2": 0.1, "conv5_4": 1},
        "vgg_type": "vgg19",
        "use_input_norm": True,
        "range_norm": False,
        "perceptual_weight": 0.5,
        "style_weight": 0,
        "criterion": "l1",
    }
    losses = load_options(TrainOptions, write(content)).train.losses
    assert [loss.model_dump(exclude={"stage"}) for loss in losses] == [
        {"type": "L1Loss", "weight": 1.0},
        {"type": "FFTLoss", "weight": 0.05},
        {
            "type": "PerceptualLoss",
            "weight": 0.5,
            "network": "vgg19",
            "layers": ("conv1_2", "conv5_4"),
            "layer_weights": (0.1, 1.0),
            "weights": None,
        },
    ]


def test_nafnets_training_file(write):
    options = load_options(TrainOptions, write(nafnet()))
    assert options.network_g.arguments()["enc_blk_nums"] == (1, 1, 1, 28)
    assert options.train.clip_grad_norm == 0.01
    assert options.train.optim_g.betas == (0.9, 0.9)
    (loss,) = options.train.losses
    assert loss.model_dump() == {"type": "PSNRLoss", "weight": 10.0, "stage": -1, "eps": 1e-8}
    (row,) = options.datasets.train.patches
    assert (row.size, row.batch_size, row.iters) == (256, 64, 400000)
    train_set = options.datasets.train.arguments()
    assert (train_set["dataroot_lq"], train_set["dataroot_gt"]) == ("lq.lmdb", "gt.lmdb")
    assert options.val.protocols == ("gopro",)


def test_nafnets_file_runs(write, tmp_path):
    lmdb = pytest.importorskip("lmdb")
    for side in ("lq", "gt"):
        folder = tmp_path / f"{side}.lmdb"
        lines = []
        with lmdb.open(str(folder), map_size=2**24) as database, database.begin(write=True) as txn:
            for file in sorted((tmp_path / side).iterdir()):
                txn.put(file.stem.encode(), file.read_bytes())
                lines.append(f"{file.stem}.png (24,28,3) 1\n")
        (folder / "meta_info.txt").write_text("".join(lines))
    small = ["network_g:width=4", "network_g:enc_blk_nums=[1,1,1,1]", *SMALL[5:], "num_gpu=0"]
    run(load_options(TrainOptions, write(nafnet()), small))
    metrics = (tmp_path / "experiments/NAFNet-GoPro-width64/metrics.jsonl").read_text()
    assert "val/gopro_ssim_3d" in metrics


def test_nafnets_unrounded_images_are_measured_unrounded(write, capsys):
    options = load_options(TrainOptions, write(nafnet(use_image=False)))
    assert options.val.protocols == ("sidd",)
    printed = capsys.readouterr().out
    assert "val.metrics.ssim: calculate_ssim on all channels, not rounded -> sidd" in printed


def test_nafnets_test_file(write):
    content = nafnet("test")
    del content["datasets"]["train"], content["train"], content["logger"]
    del content["val"]["val_freq"]
    content["val"]["grids"] = False
    content["path"]["pretrain_network_g"] = "NAFNet-GoPro-width64.pth"
    options = load_options(schema.TestOptions, write(content))
    assert options.datasets["test"].arguments()["dataroot_gt"] == "gt.lmdb"
    assert options.val.protocols == ("gopro",)


def test_basicsrs_ssim_is_a_mean_over_channels(write):
    content = {**nafnet(), "model_type": "SRModel"}
    assert load_options(TrainOptions, write(content)).val.protocols == ("rgb",)


def test_names_of_pairs(write):
    content = copy.deepcopy(RESTORMERS["Motion_Deblurring/Restormer_GoPro"])
    content["datasets"]["train"] |= {"filename_tmpl": "{}_blur", "meta_info_file": "list.txt"}
    train_set = load_options(TrainOptions, write(content)).datasets.train.arguments()
    assert train_set["pairing"] == {"lq": "{name}_blur", "gt": "{name}"}
    assert train_set["meta_info_file"] == "list.txt"


EPOCHS = {"Deraining": 250, "Deblurring": 3000, "Denoising": 80}
SHIPPED = {
    "Deraining": "Deraining/MPRNet_Rain13K",
    "Deblurring": "Motion_Deblurring/MPRNet_GoPro",
    "Denoising": "Denoising/MPRNet_SIDD",
}


@pytest.mark.parametrize("mode", SHIPPED)
def test_mprnets_file_is_our_recipe(write, mode):
    """With three images and a batch of 3, an epoch is one iteration."""
    ours = load_options(TrainOptions, OPTIONS / f"{SHIPPED[mode]}.yml")
    file = write(mprnet(mode, NUM_EPOCHS=EPOCHS[mode], BATCH_SIZE=3, VAL_AFTER_EVERY=20))
    theirs = load_options(TrainOptions, file)
    assert theirs.name == f"MPRNet_{mode}"
    assert theirs.network_g == ours.network_g
    assert theirs.train.losses == ours.train.losses
    assert theirs.train.optim_g == ours.train.optim_g
    per_epoch = ours.train.total_iter // EPOCHS[mode]
    periods = ours.train.scheduler.arguments()["periods"]
    assert theirs.train.total_iter == EPOCHS[mode]
    assert theirs.train.warmup_iter == 3
    assert [n * per_epoch for n in theirs.train.scheduler.arguments()["periods"]] == list(periods)
    assert (theirs.train.mixup is None) == (ours.train.mixup is None)
    if ours.train.mixup is not None:
        assert theirs.train.mixup.start_iter * per_epoch == ours.train.mixup.start_iter
        assert theirs.train.mixup.beta == ours.train.mixup.beta == 0.6
    assert theirs.val.val_freq == 20
    assert theirs.datasets.train.arguments()["dataroot_lq"] == "train/input"


def test_mprnets_file_runs_with_options_of_this_project(write, tmp_path, capsys):
    content = mprnet("Denoising", NUM_EPOCHS=4, BATCH_SIZE=2, TRAIN_PS=16)
    content["OPTIM"]["BETA1"] = 0.9
    small = ["network_g:n_feat=8", "network_g:scale_unetfeats=4", "network_g:scale_orsnetfeats=4"]
    force = [*small, "network_g:num_cab=1", "device=cpu", "name=short", "train:total_iter=3"]
    options = load_options(TrainOptions, write(content), force)
    printed = capsys.readouterr().out
    assert "not needed here: GPU, VERBOSE, OPTIM.BETA1, TRAINING.SAVE_DIR" in printed
    assert "train.total_iter: 3 instead of 8 iterations" in printed
    run(options)
    assert (tmp_path / "experiments/short/models/net_g_latest.safetensors").is_file()
    with pytest.raises(OptionsError, match=r"network_g\.n_feats: unknown key"):
        load_options(TrainOptions, write(content), ["network_g:n_feats=8"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"TRAIN_DIR": "nowhere"}, "TRAINING.TRAIN_DIR: no images in nowhere/target, which are co"),
        ({"BATCH_SIZE": "many"}, "OPTIM.BATCH_SIZE: expected a whole number of at least 1, not 'm"),
        ({"NUM_EPOCHS": 0}, "OPTIM.NUM_EPOCHS: expected a whole number of at least 1, not 0"),
        ({"LR_MIN": "low"}, "OPTIM.LR_MIN: expected a number, not 'low'"),
        ({"RESUME": True}, "TRAINING.RESUME: start train.py with --auto_resume instead"),
    ],
)
def test_mistakes_in_mprnets_file(write, changes, message):
    file = write(mprnet("Denoising", **changes))
    with pytest.raises(OptionsError) as caught:
        load_options(TrainOptions, file)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{file}: {message}")


def test_mprnets_file_is_for_training(write):
    with pytest.raises(OptionsError, match="this is a training file"):
        load_options(schema.TestOptions, write(mprnet("Denoising")))
    with pytest.raises(OptionsError, match=r"MODEL\.MODE: 'Dehazing' is none of Deraining, Deblur"):
        load_options(TrainOptions, write(mprnet("Dehazing")))
