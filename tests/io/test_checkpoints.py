"""Reading and writing weights and training states; other files are refused in one line."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from basicsr.io.checkpoints import (
    METADATA,
    load_state,
    load_weights,
    save_state,
    save_weights,
)
from basicsr.utils.errors import CheckpointError

WEIGHTS = {"conv.weight": torch.arange(6.0).view(2, 3), "conv.bias": torch.tensor([0.5, -1])}
LATER = {key: value + 1 for key, value in WEIGHTS.items()}
CONTENTS = {
    "bare": WEIGHTS,
    "BasicSR": {"params": WEIGHTS},
    "BasicSR with averages": {"params": LATER, "params_ema": WEIGHTS},
    "MPRNet": {"epoch": 3, "state_dict": WEIGHTS, "optimizer": {"state": {}, "param_groups": []}},
    "with scores": {"model": WEIGHTS, "best": 37.5},
}


class Command:
    """Object whose pickle runs a command when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def assert_same(read: dict[str, torch.Tensor]) -> None:
    assert list(read) == list(WEIGHTS)
    assert all(torch.equal(read[key], WEIGHTS[key]) for key in WEIGHTS)


def assert_refused(file: Path, *words: str) -> None:
    for load in (load_weights, load_state):
        with pytest.raises(CheckpointError) as caught:
            load(file)
        message = str(caught.value)
        assert message.startswith(f"{file}: ")
        assert "\n" not in message
        assert all(word in message for word in words)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before PyTorch 1.6"])
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
@pytest.mark.parametrize("name", ["net.pth", "model_best.pth.tar"])
def test_reads_weights_as_authors_wrap_them(tmp_path, name, content, zipped):
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
    weights = load_weights(tmp_path / name)
    assert_same(weights.state_dict)
    assert weights.network is None
    assert weights.facts == {}


@pytest.mark.shared_data
def test_reads_every_file_of_the_prenet_authors(shared_data):
    files = sorted((shared_data / "weights" / "PReNet").rglob("*.pth"))
    assert len(files) == 14
    for file in files:
        assert file.read_bytes()[:2] == b"\x80\x02"  # a pickle, as PyTorch wrote before 1.6
        weights = load_weights(file).state_dict
        assert weights["conv.0.bias"].shape == (3,)


def test_files_hold_options_and_facts_and_are_reproducible(tmp_path):
    options = {"type": "PReNet", "recurrent_iter": 4}
    for name in ("a", "b"):
        save_weights(tmp_path / f"{name}.safetensors", WEIGHTS, options, iteration=7, set="Rain")
    weights = load_weights(tmp_path / "a.safetensors")
    assert weights.state_dict.keys() == WEIGHTS.keys()
    assert torch.equal(weights.state_dict["conv.weight"], WEIGHTS["conv.weight"])
    assert weights.network == options
    assert weights.facts == {"iteration": 7, "set": "Rain"}
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_shared_weights_are_stored_twice(tmp_path):
    shared = torch.rand(3)
    save_weights(tmp_path / "net.safetensors", {"a": shared, "b": shared}, {"type": "Any"})
    read = load_weights(tmp_path / "net.safetensors").state_dict
    assert torch.equal(read["a"], shared)
    assert torch.equal(read["b"], shared)


def test_foreign_safetensors_are_read(tmp_path):
    save_file(WEIGHTS, tmp_path / "net.safetensors", {"format": "pt"})
    weights = load_weights(tmp_path / "net.safetensors")
    assert torch.equal(weights.state_dict["conv.weight"], WEIGHTS["conv.weight"])
    assert weights.network is None


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before PyTorch 1.6"])
def test_code_is_not_run(tmp_path, zipped):
    mark, file = tmp_path / "it_ran", tmp_path / "net.pth"
    content = {"state_dict": WEIGHTS, "extra": Command(mark)}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    assert_refused(file, "holds a Python object (posix.system)", "could run code", "refused")
    assert not mark.exists()
    torch.load(file, weights_only=False)  # the file is indeed one that runs code
    assert mark.exists()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_code_in_a_plain_pickle_is_not_run(tmp_path, protocol, recwarn):
    mark, file = tmp_path / "it_ran", tmp_path / "net.pth"
    file.write_bytes(pickle.dumps(Command(mark), protocol))
    assert_refused(file, "could run code")
    assert not mark.exists()
    assert not recwarn.list


def test_a_whole_network_is_refused_by_the_name_of_its_class(tmp_path):
    torch.save(nn.Conv2d(1, 1, 1), tmp_path / "net.pth")
    assert_refused(tmp_path / "net.pth", "torch.nn.modules.conv.Conv2d", "state_dict()")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before PyTorch 1.6"])
@pytest.mark.parametrize("kept", [0.01, 0.1, 0.5, 0.9, 0.99])
def test_truncated_files(tmp_path, zipped, kept):
    file = tmp_path / "net.pth"
    torch.save({"w": torch.rand(100)}, file, _use_new_zipfile_serialization=zipped)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole))])
    assert_refused(file, "damaged, or no PyTorch file")


@pytest.mark.parametrize(
    "content",
    [b"", b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/spec/v1\n", b"d: 1\n"],
)
def test_files_that_are_something_else(tmp_path, content):
    (tmp_path / "net.pth").write_bytes(content)
    assert_refused(tmp_path / "net.pth", "damaged, or no PyTorch file")
    (tmp_path / "net.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged, or no \.safetensors file"):
        load_weights(tmp_path / "net.safetensors")


def test_tar_files_of_the_first_pytorch_are_refused(tmp_path):
    with tarfile.open(tmp_path / "net.pth", "w") as tar:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            member = tarfile.TarInfo(name)
            member.size = len(content := pickle.dumps({"little_endian": True}))
            tar.addfile(member, io.BytesIO(content))
    assert_refused(tmp_path / "net.pth", "legacy .tar format")


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
def test_truncated_safetensors(tmp_path, kept):
    file = tmp_path / "net.safetensors"
    save_weights(file, WEIGHTS, {"type": "PReNet"})
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(CheckpointError, match=r"net\.safetensors: damaged, or no \.safetensors"):
        load_weights(file)


def test_safetensors_with_broken_metadata(tmp_path):
    file = tmp_path / "net.safetensors"
    save_file(WEIGHTS, file, {METADATA: json.dumps({"network_g": {}})[:-3]})
    with pytest.raises(CheckpointError, match=r"net\.safetensors: damaged"):
        load_weights(file)


def test_missing_files_and_files_without_weights(tmp_path):
    with pytest.raises(CheckpointError, match="there is no such file"):
        load_weights(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="there is no such file"):
        load_weights(tmp_path)
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "numbers.pth")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        load_weights(tmp_path / "numbers.pth")


def test_training_states(tmp_path):
    whole = {
        **{"iteration": 5, "validation_due": False, "identity": {}, "average": None},
        **{"optimizer": {"lr": 0.1}, "network": WEIGHTS},
    }
    save_state(tmp_path / "5.state", whole)
    state = load_state(tmp_path / "5.state")
    assert state["iteration"] == 5
    assert state["optimizer"] == {"lr": 0.1}
    assert_same(state["network"])
    torch.save(WEIGHTS, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="not a training state"):
        load_state(tmp_path / "net.pth")
