"""Reading and writing weights and training states; other files are refused in one line."""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import tarfile
import zipfile
from argparse import Namespace
from pathlib import Path

import numpy as np
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


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file, perhaps of a download that failed"),
        (b"\n<!DOCTYPE html><html>", "a web page that was saved in place of the file"),
        (b"<HTML>", "a web page"),
        (b'<?xml version="1.0"?><Error>', "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS, .* git lfs pull"),
        (b"\x1f\x8b\x08\x00", "a compressed archive; unpack it, and use"),
        (b"d: 1\n", "damaged, or no "),
    ],
)
def test_files_that_are_something_else(tmp_path, content, words, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name}: {words}"):
        load_weights(tmp_path / name)
    with pytest.raises(CheckpointError, match=rf"\.(pth|safetensors): {words}"):
        load_state(tmp_path / name)


def test_torchscript_is_refused(tmp_path, recwarn):
    torch.jit.save(torch.jit.script(torch.nn.Conv2d(3, 3, 3)), tmp_path / "net.pth")
    assert_refused(tmp_path / "net.pth", "a TorchScript program", "save its tensors alone")


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
    for key in ("iteration", "identity", "network", "optimizer"):
        save_state(tmp_path / "5.state", {**whole, key: "x"})
        with pytest.raises(CheckpointError, match=rf"5\.state: damaged: its {key} is a str"):
            load_state(tmp_path / "5.state")
    save_state(tmp_path / "5.state", whole)
    with pytest.raises(CheckpointError, match="a training state of this project; name the weig"):
        load_weights(tmp_path / "5.state")
    torch.save(WEIGHTS, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="not a training state"):
        load_state(tmp_path / "net.pth")
    torch.save(
        {"iter": 92000, "epoch": 1, "optimizers": [], "schedulers": []}, tmp_path / "a.state"
    )
    assert_refused(
        tmp_path / "a.state",
        *("training state of BasicSR or Restormer (iteration 92000)", "net_g_92000.pth"),
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_training_state_that_is_not_finite_is_refused(tmp_path, bad):
    moments = {"state": {0: {"exp_avg": torch.tensor([1.0, bad])}}, "param_groups": []}
    state = {"iteration": 5, "validation_due": False, "identity": {}, "average": None}
    save_state(tmp_path / "5.state", {**state, "network": WEIGHTS, "optimizer": moments})
    with pytest.raises(CheckpointError, match=r"not finite \(NaN or inf in optimizer.state.0.exp_"):
        load_state(tmp_path / "5.state")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_read_nor_written(tmp_path, bad, suffix):
    broken = {**WEIGHTS, "conv.bias": torch.tensor([0.5, bad])}
    file = tmp_path / f"net.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(broken, file)
    with pytest.raises(CheckpointError, match=r"net\..*: the weights are not finite .*conv\.bias"):
        load_weights(file)
    with pytest.raises(CheckpointError, match="not saved: the weights are not finite"):
        save_weights(tmp_path / "own.safetensors", broken, {"type": "PReNet"})
    assert not (tmp_path / "own.safetensors").exists()


def test_every_flipped_bit_of_our_files_is_noticed(tmp_path):
    """In the tensors, in their names and in the metadata."""
    file = tmp_path / "net.safetensors"
    save_weights(file, WEIGHTS, {"type": "PReNet", "recurrent_iter": 6}, iteration=7)
    whole = file.read_bytes()
    for place in range(8, len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        file.write_bytes(flipped)
        try:
            weights = load_weights(file)
        except CheckpointError:
            continue
        assert weights.network is None  # the name of our metadata; it is a foreign file now


def test_a_file_of_an_earlier_version_has_no_digest(tmp_path, caplog):
    text = json.dumps({"network_g": {"type": "PReNet"}, "iteration": 3})
    save_file(WEIGHTS, tmp_path / "old.safetensors", {METADATA: text})
    with caplog.at_level(logging.INFO, logger="basicsr"):
        assert load_weights(tmp_path / "old.safetensors").facts == {"iteration": 3}
    assert "an earlier version wrote it without a digest; not verified" in caplog.text


@pytest.mark.parametrize("text", ["[]", "5", "null", "{}", '"a"', "[" * 100_000, "9" * 5000, "{"])
def test_metadata_of_another_kind_are_refused(tmp_path, text):
    save_file(WEIGHTS, tmp_path / "net.safetensors", {METADATA: text})
    with pytest.raises(CheckpointError, match=r"net\.safetensors: damaged: its metadata"):
        load_weights(tmp_path / "net.safetensors")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floating_point_types_are_converted_with_a_line(tmp_path, caplog, dtype, suffix):
    other = {"a": torch.tensor([0.5, -2]).to(dtype), "steps": torch.tensor(3)}
    file = tmp_path / f"net.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(other, file)
    with caplog.at_level(logging.INFO, logger="basicsr"):
        read = load_weights(file).state_dict
    assert f"converted from {str(dtype)[6:]} to float32" in caplog.text
    assert read["a"].dtype == torch.float32
    assert read["a"].tolist() == [0.5, -2]
    assert read["steps"].dtype == torch.int64


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.zeros(2, dtype=torch.complex64), "complex64"),
        (torch.eye(2).to_sparse(), "sparse_coo"),
        (torch.tensor([1e300], dtype=torch.float64), "not finite"),
    ],
)
def test_types_that_weights_cannot_have_are_refused(tmp_path, tensor, kind):
    torch.save({"a": tensor}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=kind):
        load_weights(tmp_path / "net.pth")


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "net_g.module."),
        *("model.", "net.", "generator.", "module.model._fsdp_wrapped_module."),
    ],
)
def test_prefixes_are_dropped(tmp_path, prefix):
    torch.save({prefix + key: value for key, value in WEIGHTS.items()}, tmp_path / "net.pth")
    assert_same(load_weights(tmp_path / "net.pth").state_dict)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"ema": WEIGHTS, "model": LATER}, "averaged weights, 'ema'; the file has model too"),
        ({"model_state_dict": WEIGHTS}, ""),
        ({"net": {"state_dict": WEIGHTS}}, ""),
        ({"netG_state_dict": WEIGHTS, "epoch": 3}, "reading the weights in 'netG_state_dict'"),
        ({"checkpoint": {"state_dict": WEIGHTS}, "args": None}, "the weights in 'checkpoint'"),
        ({"my_net": WEIGHTS, "optimizer": {"state": {0: {"step": torch.zeros(1)}}}}, "'my_net'"),
        ({"generator": WEIGHTS, "discriminator": LATER}, ""),
        ({"ema": {"decay": 0.9, "shadow": WEIGHTS}, "net": LATER}, "averaged weights, 'ema'"),
        ({"ema": None, "ema_decay": 0.9, "model": WEIGHTS}, ""),
        ({"params": LATER, "params_ema": WEIGHTS}, "averaged weights, 'params_ema'"),
        ({**{f"ema_model.{k}": v for k, v in WEIGHTS.items()}, "initted": torch.tensor(True),
          **{f"online_model.{k}": v for k, v in LATER.items()}}, "left out, as they are no"),
        ({"module.total_ops": torch.zeros(1), "total_params": torch.zeros(1),
          **{f"module.{k}": v for k, v in WEIGHTS.items()}}, "module.total_ops, total_params"),
        ({**WEIGHTS, "best": np.float64(37.5), "epoch": 3}, "left out, as they are no weights"),
        ({"net": WEIGHTS, "psnr": np.float32(37.5), "lrs": np.arange(3.0), "o": Namespace()}, ""),
    ],
)  # fmt: skip
def test_wrappers_of_the_field(tmp_path, caplog, content, line):
    torch.save(content, tmp_path / "net.pth")
    with caplog.at_level(logging.INFO, logger="basicsr"):
        assert_same(load_weights(tmp_path / "net.pth").state_dict)
    assert line in caplog.text


def test_several_state_dicts_of_unknown_names(tmp_path):
    torch.save({"G_best": WEIGHTS, "D_best": LATER, "epoch": 3}, tmp_path / "net.pth")
    message = r"several state dicts \('G_best', 'D_best'\); save the one of the network alone"
    with pytest.raises(CheckpointError, match=message):
        load_weights(tmp_path / "net.pth")


def test_keys_that_are_no_names(tmp_path):
    torch.save({0: torch.zeros(2), 1: torch.ones(2)}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="its keys are not names of parameters"):
        load_weights(tmp_path / "net.pth")


def deflated(file: Path, content: object) -> None:
    """Save a PyTorch file and compress it, as no version of PyTorch does."""
    torch.save(content, file)
    with zipfile.ZipFile(file) as stored:
        records = {entry.filename: stored.read(entry) for entry in stored.infolist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in records.items():
            archive.writestr(name, data)


def test_what_a_file_unpacks_to_is_bounded(tmp_path):
    deflated(tmp_path / "bomb.pth", {"a": torch.zeros(2**23)})
    assert_refused(tmp_path / "bomb.pth", "unpack to 32 MiB")
    torch.save({"a": torch.zeros(1).expand(2**23)}, tmp_path / "view.pth")
    assert_refused(tmp_path / "view.pth", "unpack to 32 MiB")
    deflated(tmp_path / "small.pth", WEIGHTS)
    assert_same(load_weights(tmp_path / "small.pth").state_dict)


def test_a_flipped_bit_of_a_foreign_file_is_noticed_by_its_checksum(tmp_path):
    torch.save({"a": torch.rand(1000)}, tmp_path / "net.pth")
    content = bytearray((tmp_path / "net.pth").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "net.pth").write_bytes(content)
    assert_refused(tmp_path / "net.pth", "damaged", "Bad CRC-32")


def test_files_written_without_checksums_are_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(WEIGHTS, tmp_path / "net.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same(load_weights(tmp_path / "net.pth").state_dict)


def test_deeply_nested_pickles_are_refused(tmp_path):
    """The hash of tuples nested a million deep overflows the stack of the interpreter."""
    nested = b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"K\x01s."
    (tmp_path / "net.pth").write_bytes(nested)
    assert_refused(tmp_path / "net.pth", "more parts than weights have")


def test_a_training_state_with_a_sparse_tensor_is_refused(tmp_path):
    state = {"iteration": 5, "validation_due": False, "identity": {}, "average": None}
    network = {"a": torch.eye(2).to_sparse()}
    torch.save({**state, "network": network, "optimizer": {}}, tmp_path / "5.state")
    assert_refused(tmp_path / "5.state", "holds a tensor of type sparse_coo on cpu")
