"""Translation of option files of BasicSR, NAFNet and Restormer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from basicsr import options as schema
from basicsr.io.images import write_png
from basicsr.losses import build_losses
from basicsr.metrics import measure
from basicsr.options import TrainOptions, load_options, save_options
from basicsr.options.foreign import is_foreign
from basicsr.test import test as run_test
from basicsr.training.run import Process
from basicsr.training.trainer import train
from basicsr.utils.distributed import World
from basicsr.utils.errors import OptionsError
from basicsr.utils.interruptions import StopRequest, Watchdog

CPU = torch.device("cpu")
RESTORMER = """
name: Deraining_Restormer
model_type: ImageCleanModel
scale: 1
num_gpu: 8
manual_seed: 100
datasets:
  train:
    name: TrainSet
    type: Dataset_PairedImage
    dataroot_gt: ./Datasets/train/Rain13K/target
    dataroot_lq: ./Datasets/train/Rain13K/input
    geometric_augs: true
    filename_tmpl: '{}'
    io_backend: {type: disk}
    use_shuffle: true
    num_worker_per_gpu: 8
    batch_size_per_gpu: 8
    mini_batch_sizes: [8,5,4,2,1,1]
    iters: [92000,64000,48000,36000,36000,24000]
    gt_size: 384
    gt_sizes: [128,160,192,256,320,384]
    dataset_enlarge_ratio: 1
    prefetch_mode: ~
  val:
    name: ValSet
    type: Dataset_PairedImage
    dataroot_gt: ./Datasets/val/target
    dataroot_lq: ./Datasets/val/input
    io_backend: {type: disk}
network_g:
  type: Restormer
  inp_channels: 3
  out_channels: 3
  dim: 48
  num_blocks: [4,6,6,8]
  num_refinement_blocks: 4
  heads: [1,2,4,8]
  ffn_expansion_factor: 2.66
  bias: False
  LayerNorm_type: WithBias
  dual_pixel_task: False
path: {pretrain_network_g: ~, strict_load_g: true, resume_state: ~}
train:
  total_iter: 300000
  warmup_iter: -1
  use_grad_clip: true
  scheduler:
    type: CosineAnnealingRestartCyclicLR
    periods: [92000, 208000]
    restart_weights: [1,1]
    eta_mins: [0.0003,0.000001]
  mixing_augs: {mixup: false, mixup_beta: 1.2, use_identity: true}
  optim_g: {type: AdamW, lr: !!float 3e-4, weight_decay: !!float 1e-4, betas: [0.9, 0.999]}
  pixel_opt: {type: L1Loss, loss_weight: 1, reduction: mean}
val:
  window_size: 8
  val_freq: !!float 4e3
  save_img: false
  rgb2bgr: true
  use_image: true
  max_minibatch: 8
  metrics:
    psnr: {type: calculate_psnr, crop_border: 0, test_y_channel: true}
logger:
  print_freq: 1000
  save_checkpoint_freq: !!float 4e3
  use_tb_logger: true
  wandb: {project: ~, resume_id: ~}
dist_params: {backend: nccl, port: 29500}
"""

BASICSR = """
name: try_B4G1
model_type: SRModel
scale: 1
num_gpu: 0
manual_seed: 10
datasets:
  train:
    name: pairs
    type: PairedImageDataset
    dataroot_gt: clean
    dataroot_lq: rainy
    filename_tmpl: '{}'
    io_backend: {type: disk}
    gt_size: 16
    use_flip: true
    use_rot: false
    use_shuffle: true
    num_worker_per_gpu: 0
    batch_size_per_gpu: 2
    dataset_enlarge_ratio: 100
    prefetch_mode: ~
  val:
    name: held-out
    type: PairedImageDataset
    dataroot_gt: clean
    dataroot_lq: rainy
    io_backend: {type: disk}
network_g: {type: PRN_r, recurrent_iter: 1, channels: 4}
path: {pretrain_model_g: ~, strict_load: true, resume_state: ~}
train:
  ema_decay: 0.5
  optim_g: {type: Adam, lr: !!float 1e-3, weight_decay: 0, betas: [0.9, 0.99]}
  scheduler: {type: MultiStepLR, milestones: [2], gamma: 0.5}
  total_iter: 3
  warmup_iter: -1
  pixel_opt: {type: L1Loss, loss_weight: 1.0, reduction: mean}
val:
  val_freq: !!float 3e0
  save_img: false
  metrics:
    psnr: {type: calculate_psnr, crop_border: 0, test_y_channel: false}
logger:
  print_freq: 1
  save_checkpoint_freq: !!float 3e0
  use_tb_logger: false
  wandb: {project: ~, resume_id: ~}
dist_params: {backend: nccl, port: 29500}
"""

TESTING = """
name: try_test
model_type: SRModel
scale: 1
num_gpu: 0
manual_seed: 0
datasets:
  test_1:
    name: pairs
    type: PairedImageDataset
    dataroot_gt: clean
    dataroot_lq: rainy
    io_backend: {type: disk}
  test_2: {name: real, type: SingleImageDataset, dataroot_lq: rainy, io_backend: {type: disk}}
network_g: {type: PRN_r, recurrent_iter: 1, channels: 4}
path:
  pretrain_network_g: experiments/try_B4G1/models/net_g_latest.safetensors
  strict_load_g: true
  resume_state: ~
val:
  save_img: true
  suffix: ~
  metrics:
    psnr: {type: calculate_psnr, crop_border: 0, test_y_channel: true}
    ssim: {type: calculate_ssim, crop_border: 0, test_y_channel: true}
"""


@pytest.fixture
def write(tmp_path):
    def write_options(text: str) -> Path:
        file = tmp_path / "options.yml"
        file.write_text(text)
        return file

    return write_options


@pytest.fixture
def errors_of(write):
    """Return the errors of RESTORMER with assignments, or of another file."""

    def errors(*force: str, text: str = RESTORMER) -> list[str]:
        file = write(text)
        with pytest.raises(OptionsError) as caught:
            load_options(TrainOptions, file, force)
        return [line.removeprefix(f"{file}: ") for line in str(caught.value).splitlines()]

    return errors


def test_restormers_own_file_is_its_recipe(write):
    """It equals the shipped option file, except for names and data sets."""
    shipped = Path(__file__).parents[2] / "options/train/Deraining/Restormer_Rain13K.yml"
    ours, theirs = load_options(TrainOptions, shipped), load_options(TrainOptions, write(RESTORMER))
    assert theirs.network_g == ours.network_g
    assert theirs.datasets.train.patches == ours.datasets.train.patches
    assert theirs.datasets.train.use_hflip
    assert theirs.datasets.train.use_rot
    assert theirs.train.model_dump(exclude={"scheduler"}) == ours.train.model_dump(
        exclude={"scheduler"}
    )
    assert theirs.train.scheduler.arguments() == {
        **ours.train.scheduler.arguments(),
        "restart_weights": (1.0, 1.0),
    }
    assert theirs.val.val_freq == 4000
    assert theirs.val.protocols == ("matlab_y_double",)
    assert theirs.logger.save_checkpoint_freq == 4000


def test_the_translation_is_printed(write, capsys):
    file = write(RESTORMER)
    load_options(TrainOptions, file)
    assert capsys.readouterr().out.splitlines() == [
        f"{file}: translated to options of this project",
        "  model_type: ImageCleanModel -> RestorationModel",
        "  datasets.train.type: Dataset_PairedImage -> PairedImageDataset",
        "  datasets.train.geometric_augs: True -> use_hflip, use_rot",
        "  datasets.train.gt_sizes, mini_batch_sizes, iters, num_gpu: 8 -> patches of "
        "128 x 64 for 92000, 160 x 40 for 64000, 192 x 32 for 48000, 256 x 16 for 36000, "
        "320 x 8 for 36000, 384 x 8 for 24000 (global batch)",
        "  train.use_grad_clip: True -> clip_grad_norm 0.01",
        "  train.pixel_opt: L1Loss -> losses: L1Loss, weight 1",
        "  datasets.val.type: Dataset_PairedImage -> PairedImageDataset",
        "  val.metrics.psnr: calculate_psnr on Y -> matlab_y_double",
        "  not needed here: scale, dist_params, datasets.train.filename_tmpl, "
        "datasets.train.use_shuffle, datasets.train.dataset_enlarge_ratio, "
        "datasets.train.prefetch_mode, train.warmup_iter, train.mixing_augs, "
        "train.pixel_opt.reduction, val.window_size, val.max_minibatch, val.rgb2bgr, "
        "path.strict_load_g, logger.wandb",
    ]


def test_the_saved_options_are_translated(write, tmp_path, capsys):
    options = load_options(TrainOptions, write(RESTORMER))
    save_options(options, tmp_path / "saved.yml")
    capsys.readouterr()
    assert load_options(TrainOptions, tmp_path / "saved.yml") == options
    assert capsys.readouterr().out == ""


def test_weights_and_biases_go_to_the_project_of_the_file(write):
    options = load_options(TrainOptions, write(RESTORMER), ["logger:wandb:project=rain"])
    assert options.logger.wandb_project == "rain"


def test_assignments_use_foreign_or_own_keys(write):
    force = ["num_gpu=2", "train:precision=bf16", "datasets:train:dataroot_gt=elsewhere"]
    force.append("datasets:train:color=gray")
    options = load_options(TrainOptions, write(RESTORMER), force)
    assert options.datasets.train.patches[0].batch_size == 16
    assert options.datasets.train.arguments()["dataroot_gt"] == "elsewhere"
    assert options.datasets.train.arguments()["color"] == "gray"
    assert options.train.precision == "bf16"


@pytest.mark.parametrize(
    ("force", "rows"),
    [
        (["train:total_iter=100000"], [(128, 64, 92000), (160, 40, 8000)]),
        (["datasets:train:iters=[1,2,3,4,5,6]"], [(128, 64, 1), (160, 40, 2)]),
        (["datasets:train:batch_size_per_gpu=5"], [(128, 40, 92000), (160, 40, 64000)]),
        (["datasets:train:gt_size=150"], [(128, 64, 92000), (150, 40, 64000)]),
    ],
    ids=["ends early", "last row goes on", "batch is the most", "size is the most"],
)
def test_the_progressive_schedule_is_restormers(write, force, rows):
    options = load_options(TrainOptions, write(RESTORMER), force)
    patches = [(row.size, row.batch_size, row.iters) for row in options.datasets.train.patches]
    assert patches[:2] == rows
    assert sum(row[2] for row in patches) == options.train.total_iter


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("scale=2", "scale: 2 is not supported: networks here keep the size of their input"),
        ("num_gpu=many", "num_gpu: expected a number of GPUs or auto, not 'many'"),
        (
            "datasets:train:io_backend:type=petrel",
            "datasets.train.io_backend: 'petrel' is not supported: use disk or lmdb",
        ),
        (
            "datasets:val:io_backend:type=lmdb",
            "datasets.val.io_backend: lmdb: the name of ./Datasets/val/input and ./Datasets/val/",
        ),
        (
            "datasets:train:filename_tmpl=x",
            "datasets.train.filename_tmpl: 'x': expected one {} in it",
        ),
        (
            "datasets:train:use_shuffle=false",
            "datasets.train.use_shuffle: False is not supported: samples are always shuffled",
        ),
        ("datasets:train:mean=[0.5]", "datasets.train.mean: [0.5] is not supported: images are"),
        ("datasets:val:color=y", "datasets.val.color: 'y' is not supported: use rgb or gray"),
        ("datasets:train:gt_sizes=[1]", "datasets.train: gt_size, batch_size_per_gpu and train.t"),
        ("datasets:train:gt_size=big", "datasets.train: gt_size, batch_size_per_gpu and train.to"),
        ("train:mixup=true", "train.mixup: give its numbers: mixup: {beta: 1.2}"),
        ("train:mixing_augs={mixup: true, mixup_beta: 0}", "train.mixup.beta: expected a number"),
        ("train:mixing_augs={mixup: true, cutmix: true}", "train.mixup.cutmix: unknown key"),
        (
            "train:pixel_opt:reduction=sum",
            "train.pixel_opt.reduction: 'sum' is not supported: losses are means",
        ),
        ("train:pixel_opt:type=HuberLoss", "train.losses[0]: no such type 'HuberLoss'"),
        (
            "train:pixel_opt={type: PSNRLoss, toY: true}",
            "train.pixel_opt.toY: True is not supported: losses compare the network's channels",
        ),
        (
            "train:pixel_opt={type: PSNRLoss, loss_weight: a}",
            "train.losses[0].weight: expected a valid number, not 'a'",
        ),
        (
            "train:perceptual_opt={type: PerceptualLoss, layer_weights: {conv5_4: 1}, "
            "style_weight: 1}",
            "train.perceptual_opt.style_weight: 1 is not supported: only L1 differences of",
        ),
        (
            "train:perceptual_opt={type: PerceptualLoss}",
            "train.perceptual_opt.layer_weights: expected 'layer: weight' lines",
        ),
        ("train:gan_opt={type: GANLoss}", "train.gan_opt: unknown key"),
        ("train:scheduler:type=VibrateLR", "train.scheduler: no such type 'VibrateLR'"),
        ("network_g:type=SwinIR", "network_g: no such type 'SwinIR'"),
        (
            "val:metrics:niqe={type: calculate_niqe}",
            "val.metrics.niqe: only calculate_psnr and calculate_ssim with crop_border: 0 are "
            "measured",
        ),
        ("val:metrics:psnr:crop_border=4", "val.metrics.psnr: only calculate_psnr and calculate"),
        ("val:metrics:psnr:what=4", "val.metrics.psnr.what: unknown to calculate_psnr"),
        ("val:grids=true", "val.grids: True is not supported: give val.tile, in pixels, instead"),
        ("val:suffix=x", "val.suffix: 'x' is not supported: restored images keep their names"),
        ("path:param_key=ema", "path.param_key: 'ema': expected params or params_ema"),
        ("val:metrics=[psnr]", "val.metrics: unknown key"),
        ("logger:wandb=3", "logger.wandb: unknown key"),
        ("train:mixing_augs=3", "train.mixing_augs: unknown key"),
        ("train:zzz=3", "train.zzz: unknown key; known here: accumulation_steps"),
    ],
)
def test_unsupported_values_are_errors(errors_of, assignment, message):
    (line,) = errors_of(assignment)
    assert line.startswith(message)


def test_all_errors_are_reported_together(errors_of):
    lines = errors_of("scale=4", "train:mixup=true", "network_g:dimm=3", "foo=1")
    keys = ["scale", "train.mixup", "network_g.dimm", "foo"]
    assert [line.split(":")[0] for line in lines] == keys


@pytest.mark.parametrize("key", ["strict_load_g", "strict_load"])
def test_weights_that_need_not_fit(write, key):
    force = ["path:pretrain_network_g=weights.pth", f"path:{key}=false"]
    text = RESTORMER.replace("strict_load_g", key)
    assert not load_options(TrainOptions, write(text), force).path.strict_load_g
    assert load_options(TrainOptions, write(text), [force[0]]).path.strict_load_g


def test_sections_of_a_wrong_type_are_errors(errors_of):
    for key in ("datasets", "network_g", "path", "train", "val", "logger"):
        assert any(line.startswith(key) for line in errors_of(f"{key}=3"))


def test_losses_of_a_wrong_type_are_errors(errors_of):
    errors = errors_of("train:losses={a: 1}")
    assert "train.losses: expected a list, not {'a': 1}" in errors


def test_nafnet_clips_by_default(write):
    text = RESTORMER.replace("ImageCleanModel", "ImageRestorationModel")
    text = text.replace("  use_grad_clip: true\n", "")
    assert load_options(TrainOptions, write(text)).train.clip_grad_norm == 0.01
    quiet = load_options(TrainOptions, write(text), ["train:use_grad_clip=false"])
    assert quiet.train.clip_grad_norm is None
    basicsr = text.replace("ImageRestorationModel", "SRModel")
    assert load_options(TrainOptions, write(basicsr)).train.clip_grad_norm is None


def test_nafnets_cosine_is_one_period(write, errors_of):
    force = ["train:scheduler={type: TrueCosineAnnealingLR, T_max: 300000, eta_min: 1e-7}"]
    options = load_options(TrainOptions, write(RESTORMER), force)
    assert options.train.scheduler.arguments() == {
        "type": "CosineAnnealingRestartLR",
        "periods": (300000,),
        "restart_weights": (1.0,),
        "eta_min": 1e-7,
    }
    assert errors_of(*force, "train:scheduler:T_max=200000") == [
        "train.scheduler.T_max: 200000: the rate would rise again after it"
    ]


@pytest.mark.parametrize(
    ("author", "given", "weight", "eps"),
    [
        ("ImageCleanModel", "{type: CharbonnierLoss, loss_weight: 2, eps: 1e-3}", 1.0, 1e-3),
        ("SRModel", "{type: CharbonnierLoss, loss_weight: 2, eps: 1e-6}", 2.0, 1e-3),
        ("SRModel", "{type: CharbonnierLoss}", 1.0, 1e-6),
    ],
)
def test_charbonnier_is_the_authors(write, author, given, weight, eps):
    text = RESTORMER.replace("ImageCleanModel", author)
    (loss,) = load_options(TrainOptions, write(text), [f"train:pixel_opt={given}"]).train.losses
    assert loss.weight == weight
    assert loss.arguments()["eps"] == pytest.approx(eps)


@pytest.mark.parametrize("author", ["ImageCleanModel", "ImageRestorationModel"])
def test_psnr_loss_is_the_authors(write, author):
    """NAFNet and Restormer: 10 log10(MSE + 1e-8) of each image, averaged."""
    given = "train:pixel_opt={type: PSNRLoss, loss_weight: 0.5, reduction: mean, toY: false}"
    text = RESTORMER.replace("ImageCleanModel", author)
    (options,) = load_options(TrainOptions, write(text), [given]).train.losses
    restored, target = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    target[0], target[1] = 0.1, 0.001
    loss, _ = build_losses([options.model_dump()])([restored], target)
    expected = np.mean([5 * np.log10(mse + 1e-8) for mse in (1e-2, 1e-6)])
    assert loss.item() == pytest.approx(expected)


def test_the_protocols_equal_basicsrs_metrics():
    """BasicSR's PSNR of 8-bit RGB images, and of their unrounded Y channel."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, 256, (40, 50, 3), np.uint8)
    noise = rng.integers(-20, 20, target.shape)
    restored = np.clip(target + noise, 0, 255).astype(np.uint8)

    def psnr(a: np.ndarray, b: np.ndarray) -> float:
        return 10 * np.log10(255**2 / np.mean((a - b) ** 2))

    def luma(image: np.ndarray) -> np.ndarray:
        return image @ np.array([65.481, 128.553, 24.966]) / 255 + 16

    rgb = psnr(restored.astype(float), target.astype(float))
    assert measure(restored, target, "rgb")["psnr"] == pytest.approx(rgb, abs=1e-9)
    y = psnr(luma(restored), luma(target))
    assert measure(restored, target, "matlab_y_double")["psnr"] == pytest.approx(y, abs=1e-6)
    assert abs(measure(restored, target, "matlab_y")["psnr"] - y) > 1e-4


def test_validation_needs_both_of_its_sections(write):
    for absent in ("val", "datasets:val"):
        options = load_options(TrainOptions, write(RESTORMER), [f"{absent}=~"])
        assert options.val is None
        assert options.datasets.val is None


def test_several_validation_sets_are_numbered(write, capsys):
    other = "{name: b, type: Dataset_PairedImage, dataroot_gt: there, dataroot_lq: here}"
    options = load_options(
        TrainOptions, write(RESTORMER), [f"datasets:val_1={other}", f"datasets:val_other={other}"]
    )
    sets = options.datasets.validation
    assert list(sets) == ["val", "val_2", "val_3"]
    assert [each.arguments()["dataroot_gt"] for each in sets.values()][1:] == ["there", "there"]
    assert "datasets.val_1 -> datasets.val_2" in capsys.readouterr().out


@pytest.mark.parametrize("model_type", ["RestorationModel", "ESRGANModel", None, ["SRModel"]])
def test_other_files_are_not_translated(model_type):
    assert not is_foreign({"model_type": model_type, "num_gpu": 1})


def test_a_basicsr_file_trains_and_is_tested_unchanged(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("1", "2", "3"):
        clean = rng.integers(0, 200, (20, 24, 3), np.uint8)
        write_png(tmp_path / "clean" / f"{name}.png", clean)
        write_png(tmp_path / "rainy" / f"{name}.png", clean + np.uint8(40))
    options = load_options(TrainOptions, write(BASICSR))
    assert options.device == "cpu"
    assert options.train.ema_decay == 0.5
    with Watchdog(100) as watchdog:
        train(options, Process(CPU, World(), StopRequest(), watchdog))
    saved = yaml.safe_load((tmp_path / "experiments/try_B4G1/options.yml").read_text())
    assert saved["datasets"]["train"]["patches"] == [{"size": 16, "batch_size": 2, "iters": 3}]

    file = write(TESTING)
    run_test(load_options(schema.TestOptions, file), str(file), CPU, World())
    assert len(list((tmp_path / "results/try_test/pairs").rglob("*.png"))) == 3
    assert len(list((tmp_path / "results/try_test/real").rglob("*.png"))) == 3
    assert "matlab_y_double" in (tmp_path / "results/try_test/scores.md").read_text()
