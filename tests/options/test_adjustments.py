"""Files given to the wrong command, and patch schedules that follow `train:total_iter`."""

from __future__ import annotations

import pytest
import yaml

from basicsr import options as schema
from basicsr.options import TrainOptions, load_options
from basicsr.utils.errors import OptionsError

GOOD = """
name: t
model_type: RestorationModel
network_g: {type: PRN_r}
datasets:
  train:
    name: a
    type: PairedImageDataset
    dataroot_lq: rainy
    dataroot_gt: clean
    patches:
      - {size: 64, batch_size: 4, iters: 6}
      - {size: 96, batch_size: 2, iters: 4}
train:
  total_iter: 10
  optim_g: {type: Adam, lr: 1e-4}
  scheduler: {type: MultiStepLR, milestones: [5]}
  losses: [{type: SSIMLoss}]
"""
TESTING = """
name: t
model_type: RestorationModel
network_g: {type: PRN_r}
path: {pretrain_network_g: weights.safetensors}
datasets:
  test_1: {name: a, type: ImageFolderDataset, dataroot_lq: photographs}
"""
FOREIGN = """
name: t
model_type: ImageCleanModel
scale: 1
num_gpu: 1
network_g: {type: PRN_r}
path: {pretrain_network_g: weights.pth, strict_load_g: true}
datasets:
  val: {name: a, type: SingleImageDataset, dataroot_lq: photographs, io_backend: {type: disk}}
val: {save_img: true}
"""


@pytest.fixture
def write(tmp_path):
    def write_file(text):
        file = tmp_path / "options.yml"
        file.write_text(text)
        return file

    return write_file


@pytest.mark.parametrize(
    "text", [GOOD, GOOD.replace("RestorationModel", "ImageCleanModel")], ids=["ours", "Restormer's"]
)
def test_a_training_file_is_no_test(write, text):
    file = write(text)
    with pytest.raises(OptionsError) as caught:
        load_options(schema.TestOptions, file)
    assert str(caught.value) == (
        f"{file}: this is a training file; train it with basicsr/train.py -opt FILE, and test the "
        "weights with a file like those in options/test"
    )


@pytest.mark.parametrize("text", [TESTING, FOREIGN], ids=["ours", "Restormer's"])
def test_a_test_file_is_not_trained(write, text):
    file = write(text)
    assert load_options(schema.TestOptions, file).name == "t"
    with pytest.raises(OptionsError) as caught:
        load_options(TrainOptions, file)
    assert str(caught.value) == (
        f"{file}: this is a test file, it has no section 'train'; run it with basicsr/test.py "
        "-opt FILE"
    )


def test_a_test_file_may_name_the_model_type(write):
    assert load_options(schema.TestOptions, write(TESTING)).model_type == "RestorationModel"
    with pytest.raises(OptionsError, match="model_type: no model type is called 'Restoration'"):
        load_options(schema.TestOptions, write(TESTING), ["model_type=Restoration"])


@pytest.mark.parametrize(
    ("total", "patches"),
    [
        (4, [(64, 4)]),
        (6, [(64, 6)]),
        (7, [(64, 6), (96, 1)]),
        (10, [(64, 6), (96, 4)]),
        (30, [(64, 6), (96, 24)]),
    ],
)
def test_patches_follow_the_iterations_of_the_command_line(write, capsys, total, patches):
    file = write(GOOD)
    options = load_options(TrainOptions, file, [f"train:total_iter={total}", "name=try"])
    assert [(row.size, row.iters) for row in options.datasets.train.patches] == patches
    assert [row.batch_size for row in options.datasets.train.patches] == [4, 2][: len(patches)]
    printed = capsys.readouterr().out
    if total == 10:
        assert printed == ""
    else:
        stages = ", ".join(f"{iters} of size {size}" for size, iters in patches)
        assert printed == (
            f"{file}: train.total_iter: {total} instead of 10 iterations; patches: {stages}; "
            "the scheduler stays as it is\n"
        )


def test_patches_follow_when_their_sizes_are_given(write):
    force = ["train:total_iter=7", "datasets:train:patches:0:batch_size=1"]
    options = load_options(TrainOptions, write(GOOD), force)
    assert [(row.batch_size, row.iters) for row in options.datasets.train.patches] == [
        (1, 6),
        (2, 1),
    ]


def test_the_only_stage_follows(write):
    content = yaml.safe_load(GOOD)
    content["datasets"]["train"]["patches"] = [{"size": 64, "batch_size": 4, "iters": 10}]
    options = load_options(TrainOptions, write(yaml.safe_dump(content)), ["train:total_iter=4"])
    assert [row.iters for row in options.datasets.train.patches] == [4]


@pytest.mark.parametrize(
    "force",
    [
        ["datasets:train:patches:1:iters=1"],
        ["datasets:train:patches:1={size: 96, batch_size: 2, iters: 1}"],
        ["datasets:train:patches=[{size: 64, batch_size: 4, iters: 9}]"],
    ],
)
def test_given_patches_are_not_changed(write, force):
    with pytest.raises(OptionsError, match="total_iter is 4, but the iters"):
        load_options(TrainOptions, write(GOOD), ["train:total_iter=4", *force])


@pytest.mark.parametrize(
    ("total", "message"),
    [("0", "greater than 0"), ("-3", "greater than 0"), ("x", "integer"), ("1.5", "integer")],
)
def test_no_number_of_iterations_is_an_error(write, total, message):
    with pytest.raises(OptionsError, match=rf"train.total_iter: .*{message}"):
        load_options(TrainOptions, write(GOOD), [f"train:total_iter={total}"])


def test_a_broken_schedule_is_reported_as_usual(write):
    text = GOOD.replace("iters: 6", "iters: six")
    with pytest.raises(OptionsError, match=r"patches\[0\].iters: .*not 'six'"):
        load_options(TrainOptions, write(text), ["train:total_iter=4"])
