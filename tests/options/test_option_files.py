"""All shipped option files load, their networks build, and their parts fit each other."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

from basicsr import options as schema
from basicsr.archs import build_network
from basicsr.data.layouts import LAYOUTS
from basicsr.options import TrainOptions, load_options
from basicsr.utils.registry import SCHEDULER_REGISTRY

OPTIONS = Path(__file__).parents[2] / "options"
TRAIN = sorted((OPTIONS / "train").rglob("*.yml"))
TEST = sorted((OPTIONS / "test").rglob("*.yml"))
BOTH = [(TrainOptions, file) for file in TRAIN] + [(schema.TestOptions, file) for file in TEST]


def name(file: Path) -> str:
    return file.stem


def stages(options: TrainOptions | schema.TestOptions) -> int:
    """Return the number of supervised outputs of the network."""
    assert options.network_g is not None
    return _stages(tuple(options.network_g.arguments().items()))


@cache
def _stages(network: tuple) -> int:
    with torch.device("meta"):  # without memory for its weights
        net = build_network(dict(network)).train()
        side = 2 * net.size_multiple
        return len(net(torch.rand(2, net.in_channels, side, side), all_stages=True))


@pytest.mark.parametrize(("kind", "file"), BOTH, ids=[f"{f.parts[-3]}-{f.stem}" for _, f in BOTH])
def test_loads_and_its_network_builds(kind, file):
    options = load_options(kind, file)
    assert options.name == file.stem
    if options.network_g is None:  # a file to copy; the file of weights describes the network
        assert file.parent == OPTIONS / "test"
    else:
        assert stages(options) >= 1


@pytest.mark.parametrize("file", TRAIN, ids=name)
def test_losses_fit_the_stages(file):
    options = load_options(TrainOptions, file)
    count = stages(options)
    for loss in options.train.losses:
        assert -count <= loss.stage < count


@pytest.mark.parametrize("file", TRAIN, ids=name)
def test_schedule_covers_the_training(file):
    settings = load_options(TrainOptions, file).train
    schedule = SCHEDULER_REGISTRY.build(settings.scheduler.arguments())
    if settings.scheduler.type == "MultiStepLR":
        assert all(0 < milestone < settings.total_iter for milestone in schedule.milestones)
    elif file.stem == "MPRNet_SIDD":  # 40 epochs longer, as published
        assert sum(schedule.periods) == settings.total_iter + 40 * 6000
    else:
        assert sum(schedule.periods) == settings.total_iter
    rates = [schedule(i, settings.optim_g.lr) for i in (0, settings.total_iter - 1)]
    assert rates[0] == settings.optim_g.lr
    assert 0 < rates[1] <= rates[0]


@pytest.mark.parametrize("file", TRAIN, ids=name)
def test_never_trains_or_selects_on_a_test_set(file):
    options = load_options(TrainOptions, file)
    sets = [options.datasets.train, options.datasets.val]
    given = [each.arguments() for each in sets if each is not None]
    if options.datasets.val is not None and given[0]["type"] == "PairedImageDataset":
        if given[0]["dataroot"] == given[1]["dataroot"]:
            assert [each["split"] for each in given] == ["train", "val"]
            assert given[0] == {**given[1], "split": "train", "cache": given[0]["cache"]}
        else:  # DPDD has a validation set of its own
            roots = [Path(each["dataroot"]).parts[1] for each in given]
            assert roots == ["train", "val"]
    for each in given:
        root = Path(each.get("dataroot") or each.get("dataroot_gt") or "")
        assert "test" not in root.parts
        assert not {"Rain100L", "Rain100H", "Rain12"} & {*root.parts, each.get("layout")}


@pytest.mark.parametrize("file", TEST, ids=name)
def test_layouts_exist(file):
    for each in load_options(schema.TestOptions, file).datasets.values():
        assert each.arguments().get("layout") in {*LAYOUTS, None}


@pytest.mark.parametrize(
    ("file", "iterations", "milestones"),
    [
        ("DTPNet_RainTrainL", 100 * (180 * 15 // 4), (30, 50, 80)),
        ("DTPNet_Rain200H", 100 * (1620 * 15 // 4), (30, 50, 80)),
        ("DTPNet_RainTrainL_iter2", 120 * (180 * 15 // 6), (35, 55, 85)),
        ("DTPNet_DID-Data", 300 * (10_800 // 3), (10, 50, 80)),
        ("PReNet_RainTrainL", 100 * (180 * 30 // 18), (30, 50, 80)),
        ("PReNet_RainTrainH", 100 * (1128 * 15 // 18), (30, 50, 80)),
    ],
)
def test_epochs_are_converted_to_iterations(file, iterations, milestones):
    settings = load_options(TrainOptions, OPTIONS / f"train/Deraining/{file}.yml").train
    epochs = 300 if "DID" in file else 120 if "iter2" in file else 100
    assert settings.total_iter == iterations
    assert settings.scheduler.arguments()["milestones"] == tuple(
        epoch * iterations // epochs for epoch in milestones
    )


def test_patches_per_image_of_rain100():
    """The counts behind the epochs above: 321 x 481 pixels, cropped to 320 x 480."""
    prenet = len(range(0, 321 - 100 + 1, 80)) * len(range(0, 481 - 100 + 1, 80))
    dtpnet = len(range(0, 320 - 96 + 1, 96)) * len(range(0, 480 - 96 + 1, 96))
    assert (prenet, dtpnet) == (15, 15)


RESTORMERS = sorted(file for file in TRAIN if file.stem.startswith("Restormer_"))


def test_restormers_recipes():
    assert [file.stem.removeprefix("Restormer_") for file in RESTORMERS] == [
        "DPDD_dual",
        "DPDD_single",
        "SIDD",
        "color_blind",
        "color_sigma15",
        "color_sigma25",
        "color_sigma50",
        "gray_blind",
        "gray_sigma15",
        "gray_sigma25",
        "gray_sigma50",
        "Rain13K",
        "GoPro",
    ]


@pytest.mark.parametrize("file", RESTORMERS, ids=name)
def test_restormers_recipe_is_that_of_eight_gpus(file):
    options = load_options(TrainOptions, file)
    rows = [(row.size, row.batch_size // 8, row.iters) for row in options.datasets.train.patches]
    assert rows == [
        (128, 8, 92000),
        (160, 5, 64000),
        (192, 4, 48000),
        (256, 2, 36000),
        (320, 1, 36000),
        (384, 1, 24000),
    ]
    assert options.train.clip_grad_norm == 0.01
    assert options.train.losses[0].type == "L1Loss"
    denoises = file.parent.name == "Denoising"
    norm = options.network_g.arguments()["LayerNorm_type"]
    assert norm == ("BiasFree" if denoises else "WithBias")
    assert (options.train.mixup is not None) == denoises


@pytest.mark.parametrize(
    ("file", "epochs", "iterations_per_epoch"),
    [
        ("Motion_Deblurring/MPRNet_GoPro", 3000, -(-2103 // 16)),
        ("Denoising/MPRNet_SIDD", 80, 320 * 300 // 16),
        ("Deraining/MPRNet_Rain13K", 250, -(-13711 // 16)),
    ],
)
def test_mprnets_epochs_are_converted_to_iterations(file, epochs, iterations_per_epoch):
    settings = load_options(TrainOptions, OPTIONS / f"train/{file}.yml").train
    assert settings.total_iter == epochs * iterations_per_epoch
    assert settings.warmup_iter == 3 * iterations_per_epoch
    if settings.mixup is not None:
        assert settings.mixup.start_iter == 5 * iterations_per_epoch


TESTED = [
    file
    for file in TRAIN
    if file.parent.name != "Deraining"
    and (OPTIONS / "test" / file.parent.name / file.name).exists()
]


@pytest.mark.parametrize("file", TESTED, ids=name)
def test_the_test_file_of_the_same_name_measures_the_same_network(file):
    twin = OPTIONS / "test" / file.parent.name / file.name
    trained, tested = load_options(TrainOptions, file), load_options(schema.TestOptions, twin)
    assert tested.network_g == trained.network_g
    (protocol,) = tested.val.protocols
    assert protocol in {"gopro", "dpdd", "gaussian", "sidd"}
    if file.stem.startswith("DTPNet_"):
        weights = f"experiments/{trained.name}/models/net_g_latest.safetensors"
        assert tested.path.pretrain_network_g == weights
