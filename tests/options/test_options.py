"""Loading option files, and the messages for their errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from basicsr import options as schema
from basicsr.metrics.iqa import LPIPS
from basicsr.options import TrainOptions, load_options, save_options
from basicsr.utils.errors import OptionsError

GOOD = """
name: try
model_type: RestorationModel
network_g: {type: DTPNet-T}
datasets:
  train:
    name: a
    type: PairedImageDataset
    dataroot_lq: rainy
    dataroot_gt: clean
    patches:
      - {size: 64, batch_size: 4, iters: 6}
      - {size: 96, batch_size: 2, iters: 4}
  val: {name: b, type: PairedImageDataset, dataroot: there, layout: Rain100L}
train:
  total_iter: 10
  optim_g: {type: Adam, lr: 1e-4}
  scheduler: {type: MultiStepLR, milestones: [5]}
  losses:
    - {type: SSIMLoss}
    - {type: MSELoss, weight: 0.5, stage: 0}
val: {val_freq: 5}
"""


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "options.yml"
    path.write_text(GOOD)
    return path


def errors_of(file: Path, *force: str, kind=TrainOptions) -> list[str]:
    """Return the lines of the error, without the file name."""
    with pytest.raises(OptionsError) as caught:
        load_options(kind, file, force)
    return [line.removeprefix(f"{file}: ") for line in str(caught.value).splitlines()]


def test_a_valid_file_is_loaded_with_its_defaults(file):
    options = load_options(TrainOptions, file)
    assert options.train.optim_g.lr == 1e-4
    assert options.network_g.arguments()["dim"] == 24
    assert [loss.stage for loss in options.train.losses] == [-1, 0]
    assert options.val.protocols == ("matlab_y",)
    assert options.train.precision == "fp32"
    assert options.datasets.train.use_rot


def test_arguments_of_a_component_are_its_constructors(file):
    options = load_options(TrainOptions, file)
    assert options.datasets.val.arguments() == {
        "type": "PairedImageDataset",
        "dataroot": "there",
        "layout": "Rain100L",
        "dataroot_lq": None,
        "dataroot_gt": None,
        "pairing": None,
        "meta_info_file": None,
        "split": "all",
        "color": "rgb",
        "bit_depth": 8,
        "cache": "none",
        "cache_gib": 4.0,
    }
    assert "weight" not in options.train.losses[1].arguments()


def test_effective_options_can_be_saved_and_loaded_again(file, tmp_path):
    options = load_options(TrainOptions, file, ["train:optim_g:lr=3e-4", "val:tile=64"])
    save_options(options, tmp_path / "saved.yml")
    assert load_options(TrainOptions, tmp_path / "saved.yml") == options


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("modeltype=x", "modeltype: unknown key (did you mean 'model_type'?); known here: "),
        ("network_g:dimm=3", "network_g.dimm: unknown key (did you mean 'dim'?); known here: "),
        ("train:losses:1:weigth=2", "train.losses[1].weigth: unknown key (did you mean 'weight'?)"),
        ("train:optim_g:params=3", "train.optim_g.params: unknown key"),
        ("train:zzz=3", "train.zzz: unknown key; known here: accumulation_steps, "),
        ("network_g:dim=a", "network_g.dim: expected a valid integer, not 'a'"),
        ("network_g:dim=~", "network_g.dim: expected a valid integer, not None"),
        ("network_g:num_blocks=4", "network_g.num_blocks: expected a list, not 4"),
        ("network_g:num_blocks=[4, a, 6, 8]", "network_g.num_blocks[1]: expected a valid integer"),
        ("train:optim_g:betas=[0.9]", "train.optim_g.betas[1]: required, but missing"),
        ("train:optim_g:betas=[0.9, 0.9, 0.9]", "train.optim_g.betas: expected at most 2 of them"),
        ("train:optim_g:lr=.nan", "train.optim_g.lr: expected a finite number, not nan"),
        ("train:total_iter=true", "train.total_iter: expected a valid integer, not True"),
        ("train:ema_decay=1", "train.ema_decay: expected a number less than 1, not 1"),
        ("val:val_freq=0", "val.val_freq: expected a number greater than 0, not 0"),
        ("val:val_freq=5e3", "val.val_freq: expected a valid integer, not 5000.0"),
        ("network_g=DTPNet", "network_g: expected a section with 'key: value' lines, not 'DTPNet'"),
        ("network_g={dim: 3}", "network_g: needs a 'type'"),
        ("network_g={type: {type: {}}}", "network_g: no such type '{'type': {}}'; known: DIDMDN"),
        ("network_g={type: [DTPNet]}", "network_g: no such type '['DTPNet']' (did you"),
        (
            f"network_g:dim={'a' * 1000}",
            f"network_g.dim: expected a valid integer, not '{'a' * 79}...",
        ),
        ("datasets=~", "datasets: expected a section with 'key: value' lines, not None"),
        ("train:losses=[]", "train.losses: expected at least 1 of them, not []"),
        ("train:losses=L1Loss", "train.losses: expected a list, not 'L1Loss'"),
        ("train:losses:1:type=L1Los", "train.losses[1]: no such type 'L1Los' (did you mean 'L1Lo"),
        (
            "network_g:type=restormer",
            "network_g: no such type 'restormer' (did you mean 'Restormer",
        ),
        (
            "model_type=GANModel",
            "model_type: no model type is called 'GANModel'; known: Restoration",
        ),
        (
            "train:precision=fp8",
            "train.precision: expected 'fp32', 'bf16' or 'fp16', not 'fp8'",
        ),
        ("val:quantize=floor", "val.quantize: expected 'round' or 'truncate', not 'floor'"),
        (
            "val:protocols=[matlab]",
            "val.protocols: no protocol is called 'matlab' (did you mean 'm",
        ),
        (
            "name=20240501",
            "name: expected text, not 20240501; a number must be quoted to be text: '2",
        ),
        ("name=1.10", "name: expected text, not 1.1; a number must be quoted"),
        (
            "name=on",
            "name: expected text, not True; YAML reads yes, no, on, off, true and false so",
        ),
        ("network_g:dim=0", "network_g.dim: expected a number greater than or equal to 1, not 0"),
        ("manual_seed=9223372036854775808", "manual_seed: expected a number less than or equal"),
        (
            "datasets:train:patches=[{size: 100000, batch_size: 100000, iters: 1}]",
            "datasets.train.patches[0]: a batch of 100000 patches of 100000 x 100000 has",
        ),
        ("datasets:train:cache_gib=1e300", "datasets.train.cache_gib: expected a number less"),
        (
            "datasets:train:num_worker_per_gpu=1000000",
            "datasets.train.num_worker_per_gpu: expected",
        ),
        ("val:memory_gib=1e300", "val.memory_gib: expected a number less than or equal to 1048576"),
        ("train:stall_timeout=1e300", "train.stall_timeout: expected a number less than or equal"),
        ("train:losses:1:weight=1e300", "train.losses[1].weight: expected a number less than or"),
        ("train:optim_g:capturable=true", "train.optim_g.capturable: expected False, not True"),
        ("train:optim_g:differentiable=true", "train.optim_g.differentiable: expected False, not"),
        ("train:optim_g:lr=-1", "train.optim_g.lr: expected a number greater than or equal to 0"),
        ("train:optim_g:betas=[0.9, 1.0]", "train.optim_g.betas[1]: expected a number less than 1"),
        ("train:optim_g:eps=-1", "train.optim_g: Invalid epsilon value"),
        ("train:optim_g={type: SGD, nesterov: true}", "train.optim_g: Nesterov momentum requires"),
        (
            "train:optim_g={type: Adam, foreach: true, fused: true}",
            "train.optim_g: `fused` and `for",
        ),
        (
            "train:scheduler={type: MultiStepLR, milestones: [-1]}",
            "train.scheduler.milestones[0]: expected a number greater than or equal to 0, not -1",
        ),
        (
            "train:scheduler={type: MultiStepLR, milestones: [1, 2], gamma: 1.0e300}",
            "train.scheduler: gamma: 1e+300 ** 2 is infinite; reduce it",
        ),
        (
            "train:scheduler={type: CosineAnnealingRestartLR, periods: [0]}",
            "train.scheduler.periods[0]: expected a number greater than 0, not 0",
        ),
        (
            "train:scheduler={type: CosineAnnealingRestartLR, periods: [-3, 43]}",
            "train.scheduler.periods[0]: expected a number greater than 0, not -3",
        ),
        (
            "train:scheduler={type: CosineAnnealingRestartLR, periods: []}",
            "train.scheduler.periods: expected at least 1 of them, not []",
        ),
        (
            "train:scheduler={type: CosineAnnealingRestartLR, periods: [5], eta_mins: [1, 1]}",
            "train.scheduler.eta_mins: unknown key",
        ),
        ("name=a/b", "name: expected a word of letters, digits, _ + . and -, not 'a/b'"),
        (
            "datasets:train:patches:1:iters=5",
            "train.total_iter is 10, but the iters of datasets.train.patches add up to 11; "
            "make them equal",
        ),
        ("datasets:val=~", "'val' and 'datasets.val' go together: give both, or none"),
        (
            "datasets:vall={name: c, type: PairedImageDataset}",
            "datasets.vall: unknown key (did you mean 'val'?); known here: train, val",
        ),
        ("datasets:val_2:sed=1", "datasets.val_2: needs a 'type'"),
        (
            "datasets:val_2={name: c, type: PairedImageDataset, sed: 1}",
            "datasets.val_2.sed: unknown key; known here: bit_depth, cache, cache_gib, ",
        ),
        (
            "datasets:val_2={name: c, type: PairedImageDataset, protocols: [rgbb]}",
            "datasets.val_2.protocols: no protocol is called 'rgbb' (did you mean 'rgb'?)",
        ),
        (
            "val:best=matlab_y/psrn",
            "val.best: protocol 'matlab_y' has no metric 'psrn' (did you mean 'psnr'?)",
        ),
        (
            "val:best=rgb/ssim",
            "val.best: 'rgb/ssim' is not measured on datasets.val; its protocols are matlab_y",
        ),
        ("val=~", "'val' and 'datasets.val' go together: give both, or none"),
    ],
)
def test_an_error_names_its_key(file, assignment, message):
    (line,) = errors_of(file, assignment)
    assert line.startswith(message)


def test_best_needs_a_metric_that_can_be_computed(file, monkeypatch):
    monkeypatch.setattr(LPIPS, "available", False)
    (line,) = errors_of(file, "val:best=dpdd/lpips", "val:protocols=[dpdd]")
    assert line == "val.best: 'dpdd/lpips' cannot be measured here; install what it needs"
    options = load_options(TrainOptions, file, ("val:best=dpdd/mae", "val:protocols=[dpdd]"))
    assert options.val.best == "dpdd/mae"


@pytest.mark.parametrize("missing", ["name", "network_g", "train", "datasets", "model_type"])
def test_a_missing_key_is_named(file, missing):
    content = yaml.safe_load(GOOD)
    del content[missing]
    file.write_text(yaml.safe_dump(content))
    assert errors_of(file) == [f"{missing}: required, but missing"]


def test_of_many_errors_the_first_are_printed(file):
    lines = errors_of(file, f"val={ {f'key_{i}': 0 for i in range(99)} }")
    assert len(lines) == 31
    assert lines[-1] == "there are 70 more errors; correct these first"


def test_all_errors_are_reported_together(file):
    lines = errors_of(file, "network_g:dimm=3", "train:precision=fp8", "val:val_freq=a", "what=1")
    assert [line.split(":")[0] for line in lines] == [
        "network_g.dimm",
        "train.precision",
        "val.val_freq",
        "what",
    ]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("a", "--force_yml a: expected a:b:c=value"),
        ("=3", "--force_yml =3: expected a:b:c=value"),
        ("name:x=1", "--force_yml name:x=1: 'name' is a value, not a section"),
        ("name:x:y=1", "--force_yml name:x:y=1: 'name' is a value, not a section"),
        (
            "train:losses:7:weight=1",
            "--force_yml train:losses:7:weight=1: 'train:losses' is a list of 2; "
            "'7' is no index of it (the first is 0)",
        ),
        (
            "train:losses:-1=x",
            "--force_yml train:losses:-1=x: 'train:losses' is a list of 2; "
            "'-1' is no index of it (the first is 0)",
        ),
        (
            "x=[1",
            "--force_yml x=[1: the '[' here is not closed by ']', or a comma is missing or too "
            "much inside",
        ),
        (
            "x=!!python/object:os.system []",
            "--force_yml x=!!python/object:os.system []: the tag !!python/object:os.system does "
            "not suit its value or options; remove it",
        ),
    ],
)
def test_invalid_assignments(file, assignment, message):
    assert errors_of(file, assignment) == [message]


def test_several_validation_sets_with_their_own_protocols(file):
    other = "type: PairedImageDataset, dataroot: there, layout: Rain100L"
    options = load_options(
        TrainOptions,
        file,
        [
            f"datasets:val_2={{name: c, {other}, protocols: [rgb, dtpnet]}}",
            f"datasets:val_3={{name: d, {other}}}",
        ],
    )
    assert list(options.datasets.validation) == ["val", "val_2", "val_3"]
    protocols = [options.protocols_of(key) for key in options.datasets.validation]
    assert protocols == [("matlab_y",), ("rgb", "dtpnet"), ("matlab_y",)]
    assert "protocols" not in options.datasets.validation["val_2"].arguments()


def test_assignments_are_parsed_as_yaml_and_create_sections(file):
    force = ["train:optim_g:betas=[0.5, 0.9]", "logger:print_freq=7", "train:losses:1:weight=2"]
    options = load_options(TrainOptions, file, force)
    assert options.train.optim_g.betas == (0.5, 0.9)
    assert options.logger.print_freq == 7
    assert options.train.losses[1].weight == 2.0


def test_no_such_file(tmp_path):
    assert errors_of(tmp_path / "no.yml") == ["there is no such option file"]


def test_names_of_test_sets_must_differ(file):
    dataset = {"name": "x", "type": "ImageFolderDataset", "dataroot_lq": "there"}
    content = {
        "name": "t",
        "network_g": {"type": "PRN"},
        "path": {"pretrain_network_g": "weights.pth"},
        "datasets": {"test_1": dataset, "test_2": dict(dataset)},
    }
    file.write_text(yaml.safe_dump(content))
    assert errors_of(file, kind=schema.TestOptions) == [
        "datasets: two data sets are named 'x'; give them different names"
    ]
    assert errors_of(file, "datasets={}", kind=schema.TestOptions) == [
        "datasets: expected at least 1 of them, not {}"
    ]
