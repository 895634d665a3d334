"""The PReNet family against the authors' code and with the authors' weights."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from golden import assert_matches, load_case

from basicsr.archs import build_network, from_released
from basicsr.archs.prenet_arch import RECEPTIVE_FIELD, PReNet
from basicsr.io.checkpoints import load_weights
from basicsr.utils.errors import CheckpointError, OptionsError

PARAMETERS = {
    "PReNet": 168_963,
    "PReNet_LSTM": 168_963,
    "PReNet_GRU": 150_499,
    "PReNet_x": 168_099,
    "PReNet_r": 94_979,
    "PRN": 95_107,
    "PRN_r": 21_123,
}
AUTHORS_FOLDERS = {
    "Rain100L/PReNet6": "PReNet",
    "Rain100L/PReNet6_r": "PReNet_r",
    "Rain100L/PRN6": "PRN",
    "Rain100L/PRN6_r": "PRN_r",
    "Rain1400/PReNet6": "PReNet",
    "Ablation/PReNet6_x": "PReNet_x",
    "Ablation/PReNet6_GRU": "PReNet_GRU",
    "Ablation/PReNet7_LSTM": "PReNet_LSTM",
    "Ablation/PReNet6_RecSSIM": "PReNet_LSTM",
}


@pytest.mark.parametrize("variant", PARAMETERS)
@torch.no_grad()
def test_every_stage_is_the_published_one(variant):
    case = load_case(f"prenet_{variant}")
    net = from_released(variant, case.state_dict, recurrent_iter=6)
    stages = net(case.input, all_stages=True)
    assert len(stages) == 6
    for number, stage in enumerate(stages, start=1):
        assert_matches(stage, case.outputs[f"stage{number}"])
    assert_matches(net(case.input), case.outputs["restored"])


@pytest.mark.parametrize(("variant", "count"), PARAMETERS.items())
def test_sizes(variant, count):
    net = build_network({"type": variant})
    assert sum(parameter.numel() for parameter in net.parameters()) == count


@torch.no_grad()
def test_passes_share_weights_and_start_from_the_given_image():
    net = build_network({"type": "PRN", "recurrent_iter": 1, "channels": 8})
    twice = build_network({"type": "PRN", "recurrent_iter": 2, "channels": 8})
    twice.load_state_dict(net.state_dict())
    rainy = torch.rand(1, 3, 9, 11)
    first, second = twice(rainy, all_stages=True)
    torch.testing.assert_close(first, net(rainy))
    torch.testing.assert_close(second, net(rainy, start=first))
    assert not torch.allclose(first, second)


@torch.no_grad()
def test_recurrent_state_is_carried_from_pass_to_pass():
    net = build_network({"type": "PReNet", "recurrent_iter": 2, "channels": 8})
    rainy = torch.rand(1, 3, 9, 11)
    first, second = net(rainy, all_stages=True)
    net.recurrent_iter = 1
    assert not torch.allclose(net(rainy, start=first), second)


def test_zero_passes_are_refused():
    with pytest.raises(OptionsError, match="recurrent_iter: at least 1 is needed, not 0"):
        build_network({"type": "PReNet", "recurrent_iter": 0})


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("PReNet_GRU", "PReNet"),
        ("PReNet", "PReNet_GRU"),
        ("PReNet_x", "PReNet_LSTM"),
        ("PReNet_r", "PReNet"),
        ("PRN", "PReNet"),
        ("PRN_r", "PReNet_r"),
        ("PReNet_r", "PRN"),
    ],
)
def test_weights_of_another_variant_are_refused_by_name(given, asked):
    weights = load_case(f"prenet_{given}").state_dict
    looks_like = "PReNet or PReNet_LSTM" if given == "PReNet" else given
    with pytest.raises(CheckpointError, match=f"looks like a checkpoint of {looks_like}$"):
        from_released(asked, weights)


def test_a_warning_names_the_variant_if_two_have_the_same_weights(caplog):
    weights = load_case("prenet_PReNet").state_dict
    for variant in ("PReNet", "PReNet_LSTM"):
        with caplog.at_level(logging.WARNING, logger="basicsr"):
            from_released(variant, weights)
        message = f"fit PReNet and PReNet_LSTM alike; read as {variant} because"
        assert message in caplog.messages[-1]


@pytest.mark.shared_data
@pytest.mark.parametrize(("folder", "variant"), AUTHORS_FOLDERS.items())
def test_the_authors_weights_load(shared_data: Path, folder, variant):
    file = shared_data / "weights" / "PReNet" / folder / "net_latest.pth"
    weights = load_weights(file).state_dict
    net = from_released(variant, weights)
    assert torch.equal(net.conv_out.weight, weights["conv.0.weight"])
    rainy = torch.full((1, 3, 16, 16), 0.5)
    with torch.no_grad():
        restored = net(rainy)
    assert (restored - rainy).abs().max() < 0.2  # there is no rain to remove


@pytest.mark.parametrize(("unit", "reach"), [("lstm", 13), ("gru", 14), ("none", 12)])
def test_strips_of_a_pass_include_its_receptive_field(unit, reach):
    torch.manual_seed(0)
    net = PReNet(channels=8, recurrent_unit=unit).double()
    image = torch.rand(2, 3, 61, 3, dtype=torch.float64, requires_grad=True)
    state = torch.rand({"lstm": 2, "gru": 1, "none": 0}[unit], 2, 8, 61, 3, dtype=torch.float64)
    net._one_pass(image, image, *state)[0][:, :, 30].sum().backward()
    rows = image.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert (rows[0].item(), rows[-1].item()) == (30 - reach, 30 + reach)
    assert reach <= RECEPTIVE_FIELD
