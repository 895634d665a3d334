"""Loading weights: published layouts, files of this project, and files of other networks."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from golden import Case, assert_matches, load_case
from safetensors.torch import save_file
from torch import Tensor, nn

from basicsr.archs import build_network, didmdn_arch
from basicsr.archs.released import system_of
from basicsr.io.checkpoints import save_weights
from basicsr.models.pretrained import network_with_weights, saved_network, weights_file
from basicsr.utils.errors import CheckpointError
from basicsr.utils.registry import options_of

PRENETS = ("PReNet", "PReNet_LSTM", "PReNet_GRU", "PReNet_x", "PReNet_r", "PRN", "PRN_r")
SMALL = {"type": "PReNet", "recurrent_iter": 2, "channels": 8}


def published(name: str) -> tuple[Case, dict]:
    """Return a golden case and the options of its network."""
    case = load_case(name)
    config = dict(case.facts["config"])
    if name.startswith("prenet"):
        return case, config
    system = name.partition("_")[0]
    types = {"dtpnet": "DTPNet", "restormer": "Restormer", "mprnet": "MPRNet"}
    if system in types:
        return case, {"type": types[system], **config}
    statistics = {"eval": "running", "train": "image"}[config["batch_norm"]]
    return case, {"type": "DIDMDNDerainer", "label": config["label"], "batch_norm": statistics}


@torch.no_grad()
def restored(network: nn.Module, case: Case) -> Tensor:
    """Return the output in the value range of the authors: [-1, 1] for DID-MDN."""
    if options_of(network)["type"] == "DIDMDNDerainer":
        return 2 * network.eval()((case.input + 1) / 2) - 1
    return network.eval()(case.input)


@pytest.mark.parametrize(
    "name",
    [
        *(f"prenet_{variant}" for variant in PRENETS),
        "dtpnet_dim16_iter2",
        "restormer_withbias",
        "restormer_biasfree_gray",
        "restormer_dual_pixel",
        "mprnet_deraining",
        "didmdn_eval",
        "didmdn_train",
    ],
)
def test_published_files_load_unchanged(tmp_path, name):
    case, options = published(name)
    wrapped = {f"module.{key}": value for key, value in case.state_dict.items()}
    torch.save({"epoch": 1, "state_dict": wrapped}, tmp_path / "net.pth.tar")
    network = network_with_weights(options, tmp_path / "net.pth.tar")
    expected = case.outputs.get("restored", case.outputs.get("stage3"))
    assert_matches(restored(network, case), expected)


def test_published_safetensors_load_too(tmp_path):
    case, options = published("restormer_withbias")
    save_file(case.state_dict, tmp_path / "net.safetensors")
    network = network_with_weights(options, tmp_path / "net.safetensors")
    assert_matches(restored(network, case), case.outputs["restored"])


def test_options_decide_what_weights_do_not_show(tmp_path):
    """The number of iterations, and whether there is a last stage."""
    case, options = published("prenet_PRN")
    torch.save(case.state_dict, tmp_path / "prn.pth")
    network = network_with_weights({**options, "recurrent_iter": 3}, tmp_path / "prn.pth")
    assert_matches(restored(network, case), case.outputs["stage3"])
    case, options = published("dtpnet_dim16_iter2")
    torch.save(case.state_dict, tmp_path / "dtpnet.pth")
    network = network_with_weights({**options, "recurrent_iter": 0}, tmp_path / "dtpnet.pth")
    assert_matches(restored(network, case), case.outputs["coarse"])


@pytest.mark.parametrize("read_as", ["PReNet", "PReNet_LSTM"])
def test_a_warning_names_the_network_where_two_fit(tmp_path, caplog, read_as):
    case, _ = published(f"prenet_{read_as}")
    torch.save(case.state_dict, tmp_path / "net.pth")
    with caplog.at_level(logging.WARNING, logger="basicsr"):
        network = network_with_weights({"type": read_as}, tmp_path / "net.pth")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"fit PReNet and PReNet_LSTM alike; read as {read_as} because" in caplog.text
    assert_matches(restored(network, case), case.outputs["restored"])


def test_no_warning_where_only_one_network_fits(tmp_path, caplog):
    case, _ = published("prenet_PReNet_r")
    torch.save(case.state_dict, tmp_path / "net.pth")
    with caplog.at_level(logging.WARNING, logger="basicsr"):
        network_with_weights({"type": "PReNet_r"}, tmp_path / "net.pth")
    assert not caplog.records


@pytest.mark.parametrize(
    ("case", "options", "message"),
    [
        ("mprnet_deraining", {"type": "PReNet"}, "it looks like a checkpoint of MPRNet"),
        ("prenet_PRN_r", {"type": "Restormer"}, "it looks like a checkpoint of PRN_r"),
        ("restormer_withbias", {"type": "MPRNet"}, "it looks like a checkpoint of Restormer"),
        ("prenet_PReNet", {"type": "PReNet_GRU"}, "checkpoint of PReNet or PReNet_LSTM"),
        ("didmdn_residual_eval", {"type": "DIDMDNDerainer"}, "of DID-MDN's residual net"),
        ("didmdn_eval", {"type": "DIDMDN"}, "three files; combine them with scripts/convert_"),
        ("prenet_PReNet", {"type": "SPAIR"}, "there are no published weights to read"),
        ("restormer_withbias", {"type": "Restormer", "dim": 16}, "patch_embed.proj.weight is (8"),
    ],
)
def test_weights_of_another_network(tmp_path, monkeypatch, case, options, message):
    monkeypatch.setattr(didmdn_arch, "CLASSIFIER_SIZE", 32)  # the real one is 262 MB
    torch.save(load_case(case).state_dict, tmp_path / "net.pth")
    with pytest.raises(CheckpointError) as caught:
        network_with_weights(options, tmp_path / "net.pth")
    assert str(caught.value).startswith(f"{tmp_path / 'net.pth'}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("conv.0.bias"), "missing: conv.0.bias"),
        (lambda w: w.update({"conv.1.bias": torch.zeros(3)}), "surplus: conv.1.bias"),
        (lambda w: w.update({"conv.0.bias": torch.zeros(4)}), "conv.0.bias is (4,), not (3,)"),
    ],
)
def test_missing_surplus_and_misshapen_keys(tmp_path, change, message):
    weights = load_case("prenet_PRN_r").state_dict
    change(weights)
    torch.save(weights, tmp_path / "net.pth")
    with pytest.raises(CheckpointError) as caught:
        network_with_weights({"type": "PRN_r"}, tmp_path / "net.pth")
    assert message in str(caught.value)


@pytest.fixture
def small_file(tmp_path) -> Path:
    torch.manual_seed(0)
    network = build_network(SMALL)
    file = tmp_path / "net.safetensors"
    save_weights(file, network.state_dict(), options_of(network), iteration=9)
    return file


def test_our_file_rebuilds_its_network(small_file):
    network, weights = saved_network(small_file)
    given = network_with_weights(SMALL, small_file)
    assert options_of(network) == options_of(build_network(SMALL))
    assert weights.facts == {"iteration": 9}
    image = torch.rand(1, 3, 9, 11)
    with torch.no_grad():
        assert torch.equal(network(image), given(image))


def test_our_file_of_another_type_or_size(small_file):
    with pytest.raises(CheckpointError, match=r"weights of PReNet, but network_g\.type is PRN$"):
        network_with_weights({"type": "PRN", "channels": 8}, small_file)
    with pytest.raises(CheckpointError, match="of another shape: blocks"):
        network_with_weights({"type": "PReNet"}, small_file)


def test_options_that_differ_from_the_saved_ones_are_a_warning(small_file, caplog):
    with caplog.at_level(logging.WARNING, logger="basicsr"):
        network_with_weights(SMALL, small_file)
        assert not caplog.records
        network_with_weights({**SMALL, "recurrent_iter": 5}, small_file)
    (record,) = caplog.records
    assert record.message == (
        f"{small_file}: network_g differs from the saved options: recurrent_iter is 5, was 2"
    )


def test_files_without_options_of_their_network(tmp_path):
    network = build_network(SMALL)
    torch.save(network.state_dict(), tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=r"the PReNet family .*--type NAME"):
        saved_network(tmp_path / "net.pth")
    for wrong, fault in (
        ({"channels": 8}, "its metadata do not name a network"),
        ({}, "its metadata do not name a network"),
        ({"type": 5}, "its metadata do not name a network"),
        ({"type": "PReNett"}, r"no such type 'PReNett' \(did you mean 'PReNet'\?\)"),
        ({"type": "PReNet", "colour": "red"}, "build no network .colour: unknown key"),
        ({"type": "PReNet", "channels": 0}, "build no network .channels: .*, not 0"),
        ({"type": "PReNet", "channels": "8"}, "build no network .channels: .*, not '8'"),
        ({"type": "DTPNet", "dim": 4096}, "build no network .*too large"),
    ):
        save_weights(tmp_path / "net.safetensors", network.state_dict(), wrong)
        with pytest.raises(CheckpointError, match=fault):
            saved_network(tmp_path / "net.safetensors")
    save_weights(tmp_path / "net.safetensors", network.state_dict(), {"type": "PReNet"})
    with pytest.raises(CheckpointError, match="the weights do not fit PReNet"):
        saved_network(tmp_path / "net.safetensors")


@pytest.mark.parametrize(("type", "system"), [("SPAIR", "SPAIR"), ("DIDMDN", "DID-MDN")])
def test_our_own_layouts_are_recognized(type, system):
    with torch.device("meta"):
        weights = build_network({"type": type}).state_dict()
    assert system_of(weights) == f"{system} (in this project's layout)"


def test_what_fits_is_loaded_and_the_rest_is_listed(tmp_path, caplog):
    """Fine-tuning from a task with other channels."""
    case, options = published("restormer_withbias")
    torch.save(case.state_dict, tmp_path / "net.pth")
    gray = {**options, "inp_channels": 1, "out_channels": 1}
    with pytest.raises(CheckpointError, match="of another shape"):
        network_with_weights(gray, tmp_path / "net.pth")
    with caplog.at_level(logging.WARNING, logger="basicsr"):
        network = network_with_weights(gray, tmp_path / "net.pth", strict=False)
    loaded = network.state_dict()
    other = {"patch_embed.proj.weight", "output.weight"}
    for key in loaded.keys() - other:
        assert torch.equal(loaded[key], case.state_dict[key]), key
    (record,) = caplog.records
    count = len(loaded)
    assert f"{count - 2} of the {count} weights of Restormer loaded" in record.message
    assert "new random values: patch_embed.proj.weight, output.weight; " in record.message
    assert record.message.endswith("from the file: patch_embed.proj.weight, output.weight")


def test_weights_in_the_layout_of_their_authors_are_matched_by_name(tmp_path):
    case, options = published("prenet_PReNet_r")
    del case.state_dict["conv_i.0.bias"]  # one of the four gates, which are one weight here
    torch.save(case.state_dict, tmp_path / "net.pth")
    network = network_with_weights(options, tmp_path / "net.pth", strict=False)
    assert torch.equal(network.state_dict()["conv_in.weight"], case.state_dict["conv0.0.weight"])


def test_weights_of_which_none_fits(tmp_path):
    torch.save(published("mprnet_deraining")[0].state_dict, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=r"none of its weights fits PReNet.*like .* MPRNet"):
        network_with_weights({"type": "PReNet"}, tmp_path / "net.pth", strict=False)


def test_published_weights_are_read_by_the_name_of_their_network(tmp_path):
    case, _ = published("restormer_withbias")
    torch.save({"params": case.state_dict}, tmp_path / "net.pth")
    network, weights = saved_network(tmp_path / "net.pth", "Restormer")
    assert weights.network is None
    assert_matches(restored(network, case), case.outputs["restored"])
    with pytest.raises(CheckpointError, match="checkpoint of Restormer; name it with --type Rest"):
        saved_network(tmp_path / "net.pth")


def test_published_weights_inside_of_another_module(tmp_path, caplog):
    """As programs save them that hold the network beside losses, e.g. with Lightning."""
    case, _ = published("restormer_withbias")
    others = {"loss.vgg.0.weight": torch.zeros(3), "psnr.total": torch.zeros(())}
    weights = {f"derainer.{key}": value for key, value in case.state_dict.items()}
    torch.save({"state_dict": {**weights, **others}}, tmp_path / "net.ckpt")
    network, _ = saved_network(tmp_path / "net.ckpt", "Restormer")
    assert_matches(restored(network, case), case.outputs["restored"])
    assert "reading the weights under 'derainer.'; 2 other weights are left out" in caplog.text
    with pytest.raises(CheckpointError, match="checkpoint of Restormer; name it with --type Rest"):
        saved_network(tmp_path / "net.ckpt")


@pytest.mark.parametrize("strict", [True, False])
def test_a_plain_state_dict_in_our_own_layout(tmp_path, strict):
    network = build_network(SMALL)
    torch.save(network.state_dict(), tmp_path / "net.pth")
    read = network_with_weights(SMALL, tmp_path / "net.pth", strict)
    for key, value in network.state_dict().items():
        assert value.equal(read.state_dict()[key])


def test_the_type_of_our_file_must_be_the_saved_one(small_file):
    assert saved_network(small_file, "PReNet")[1].network["type"] == "PReNet"
    with pytest.raises(CheckpointError, match="weights of PReNet, not of Restormer"):
        saved_network(small_file, "Restormer")


def test_weights_are_named_by_a_file_a_run_its_folder_or_as_shipped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    latest = Path("experiments/mine/models/net_g_latest.safetensors")
    latest.parent.mkdir(parents=True)
    latest.touch()
    for name in ("mine", "experiments/mine", "experiments/mine/", str(latest)):
        assert weights_file(name) == latest
    assert weights_file("DTPNet-T_any-rain").parent.name == "pretrained_models"
    with pytest.raises(CheckpointError, match=r"'mines': no such .* \(did you mean 'mine'\?\)"):
        weights_file("mines")
    copy = tmp_path / "copy" / "model.safetensors"  # of a repository of the hub
    copy.parent.mkdir()
    copy.touch()
    assert weights_file(copy.parent) == copy
    with pytest.raises(CheckpointError, match="experiments: a folder without models/net_g_latest"):
        weights_file("experiments")


@pytest.mark.parametrize("size", [(), (0,), (8, 3), (0, 3, 3, 3), (8, 3, 3)])
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("restormer_withbias", "patch_embed.proj.weight"),
        ("restormer_withbias", "latent.0.ffn.project_out.weight"),
        ("restormer_withbias", "encoder_level1.0.attn.temperature"),
        ("mprnet_deraining", "shallow_feat1.0.weight"),
        ("prenet_PReNet", "conv0.0.weight"),
        ("dtpnet_dim16_iter2", "patch_embed.transform2.weight"),
    ],
)
def test_weights_without_the_axes_that_sizes_are_read_from(tmp_path, name, key, size):
    case, options = published(name)
    torch.save({**case.state_dict, key: torch.zeros(size)}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="axes"):
        saved_network(tmp_path / "net.pth", options["type"])


def test_integer_weights_are_refused(tmp_path):
    case, _ = published("restormer_withbias")
    key = "output.weight"
    torch.save({**case.state_dict, key: case.state_dict[key].to(torch.int8)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"of another type: output\.weight is int8"):
        saved_network(tmp_path / "a.pth", "Restormer")
