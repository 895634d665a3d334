"""Gray, dual-view and 16-bit images: training, resuming, testing in tiles with self-ensemble.

The networks are tiny and the images are generated.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from basicsr.inference.restorer import Restorer, RestorerSettings
from basicsr.io.images import read_image, to_levels, write_png
from basicsr.metrics import measure
from basicsr.models.pretrained import saved_network
from basicsr.restore import restore
from basicsr.utils.errors import CheckpointError

HEIGHT, WIDTH = 37, 45
IMAGES = 4
TILES = {"tile": 24, "tile_overlap": 8, "self_ensemble": True}


class Case(NamedTuple):
    """Kind of images, and the options of the data set and the network for them."""

    name: str
    dtype: type
    in_channels: int
    out_channels: int
    dataset: dict
    network: dict


CASES = [
    Case("gray", np.uint8, 1, 1, {"color": "gray"}, {"inp_channels": 1, "out_channels": 1}),
    Case(
        "views",
        np.uint8,
        6,
        3,
        {"dataroot_lq": ["views/left", "views/right"]},
        {"inp_channels": 6, "dual_pixel_task": True},
    ),
    Case("deep", np.uint16, 3, 3, {"bit_depth": 16}, {}),
]


def write_images(folder: Path, case: Case, seed: int) -> None:
    """Write smooth images with fine noise that needs all bits."""
    rng = np.random.default_rng(seed)
    most = np.iinfo(case.dtype).max
    for number in range(IMAGES):
        coarse = rng.random((6, 8, case.out_channels)).astype(np.float32)
        smooth = cv2.resize(coarse, (WIDTH, HEIGHT)).reshape(HEIGHT, WIDTH, case.out_channels)
        noisy = np.clip(smooth + rng.normal(0, 0.02, smooth.shape), 0, 1)
        write_png(folder / f"{number}.png", (noisy * most).round().astype(case.dtype))


def option_files(folder: Path, case: Case) -> None:
    """Write `NAME_train.yml` and `NAME_test.yml` for the images of `case` in `folder`."""
    network = {
        "type": "Restormer",
        "dim": 8,
        "num_blocks": [1, 1, 1, 1],
        "num_refinement_blocks": 1,
        "heads": [1, 1, 2, 2],
        **case.network,
    }
    images = {
        "name": case.name,
        "type": "PairedImageDataset",
        "dataroot_lq": f"{case.name}/lq",
        "dataroot_gt": f"{case.name}/gt",
        **case.dataset,
    }
    train = {
        "name": case.name,
        "model_type": "RestorationModel",
        "device": "cpu",
        "network_g": network,
        "datasets": {
            "train": {
                **images,
                "patches": [{"size": 16, "batch_size": 2, "iters": 4}],
                "num_worker_per_gpu": 0,
            },
            "val": images,
        },
        "train": {
            "total_iter": 4,
            "optim_g": {"type": "AdamW", "lr": 1e-3},
            "scheduler": {"type": "MultiStepLR", "milestones": [3]},
            "losses": [{"type": "L1Loss"}],
        },
        "val": {"val_freq": 4},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 2, "use_tb_logger": False},
    }
    test = {
        "name": f"{case.name}-test",
        "device": "cpu",
        "network_g": network,
        "path": {"pretrain_network_g": f"experiments/{case.name}/models/net_g_latest.safetensors"},
        "datasets": {"test_1": images},
        "val": TILES,
    }
    (folder / f"{case.name}_train.yml").write_text(yaml.safe_dump(train))
    (folder / f"{case.name}_test.yml").write_text(yaml.safe_dump(test))


def read_stored(file: Path) -> np.ndarray:
    """Read an image with the channels and bits of its file."""
    return read_image(file, "as_stored", "as_stored")


def call(folder: Path, script: str, *arguments: str) -> None:
    """Run `basicsr/SCRIPT.py` in this process, with `folder` as the current folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", [script, *arguments])
        importlib.import_module(f"basicsr.{script}").main()


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def trained(request, tmp_path_factory) -> tuple[Case, Path]:
    """Train a case for four iterations; return it and the folder of images, options and results."""
    case, folder = request.param, tmp_path_factory.mktemp(request.param.name)
    for seed, side in enumerate(("gt", "lq", "left", "right")):
        write_images(folder / case.name / side, case, seed)
    option_files(folder, case)
    call(folder, "train", "-opt", f"{case.name}_train.yml")
    return case, folder


def test_a_resumed_run_ends_with_the_same_weights(trained):
    case, folder = trained
    run = folder / "experiments" / case.name
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert len(losses) == 4
    assert np.isfinite(losses).all()

    state = f"experiments/{case.name}/training_states/00000002.state"
    call(folder, "train", "-opt", f"{case.name}_train.yml",
         "--force_yml", "name=resumed", f"path:resume_state={state}")  # fmt: skip
    weights, resumed = (
        load_file(folder / "experiments" / name / "models" / "net_g_latest.safetensors")
        for name in (case.name, "resumed")
    )
    assert weights.keys() == resumed.keys()
    assert all(torch.equal(weights[key], resumed[key]) for key in weights)


def test_restored_images_keep_channels_and_bits(trained):
    case, folder = trained
    call(folder, "test", "-opt", f"{case.name}_test.yml")
    results = folder / "results" / f"{case.name}-test"
    (scores,) = json.loads((results / "scores.json").read_text())["results"]
    assert scores["images"] == IMAGES

    network, _ = saved_network(
        folder / "experiments" / case.name / "models/net_g_latest.safetensors"
    )
    restorer = Restorer(network, torch.device("cpu"), RestorerSettings(**TILES))
    sides = ("left", "right") if case.in_channels == 6 else ("lq",)
    psnr = []
    for number in range(IMAGES):
        lq = [read_stored(folder / case.name / side / f"{number}.png") for side in sides]
        expected = restorer(np.dstack(lq))
        written = read_stored(results / case.name / "restored" / f"{number}.png")
        assert written.shape == (HEIGHT, WIDTH, case.out_channels)
        np.testing.assert_array_equal(written, to_levels(expected, case.dtype))
        gt = read_stored(folder / case.name / "gt" / f"{number}.png")
        psnr.append(measure(to_levels(expected, np.uint8), gt, "matlab_y")["psnr"])
    assert scores["psnr"] == pytest.approx(np.mean(psnr), abs=1e-7)
    assert case.dtype == np.uint8 or np.any(written % 257)


def test_photographs_are_restored_where_the_network_is_for_them(trained):
    case, folder = trained
    weights = folder / "experiments" / case.name / "models" / "net_g_latest.safetensors"
    rng = np.random.default_rng(0)
    image = rng.integers(0, np.iinfo(case.dtype).max, (20, 27, 3), case.dtype)
    if case.in_channels == 6:
        with pytest.raises(
            CheckpointError, match=r"maps 6 channels \(a left and a right view\) to 3,"
        ):
            restore(image, weights, device="cpu")
        return
    restorer = Restorer(saved_network(weights)[0], torch.device("cpu"))
    if case.in_channels == 1:
        expected = np.dstack([restorer(image[..., [channel]]) for channel in range(3)])
    else:
        expected = restorer(image)
    restored = restore(image, weights, device="cpu")
    np.testing.assert_array_equal(restored, to_levels(expected, case.dtype))


@pytest.mark.parametrize("script", ["train", "test"])
def test_images_with_other_channels_than_the_network_are_a_one_line_error(trained, script, capsys):
    case, folder = trained
    color = "rgb" if case.name == "gray" else "gray"
    key = "datasets:train" if script == "train" else "datasets:test_1"
    with pytest.raises(SystemExit) as stopped:
        call(folder, script, "-opt", f"{case.name}_{script}.yml",
             "--force_yml", "name=misfit", f"{key}:color={color}")  # fmt: skip
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip()
    assert "PairedImageDataset" in error
    assert "Restormer" in error
    assert f"maps {case.in_channels} to {case.out_channels}" in error
    assert error.startswith(f"error: {case.name}_{script}.yml: {key.replace(':', '.')}: ")
    assert len(error.splitlines()) == 1
    assert not (folder / "experiments" / "misfit").exists()
