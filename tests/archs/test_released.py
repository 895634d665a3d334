"""Reading of published weights, for all systems."""

from __future__ import annotations

import pytest
import torch
from golden import load_case
from torch import nn

from basicsr.archs import build_network, from_released, strict_load
from basicsr.archs.released import Released, system_of
from basicsr.utils.errors import CheckpointError, OptionsError


@pytest.mark.parametrize(
    ("case", "system"),
    [
        ("dtpnet_dim16_iter2", "DTPNet"),
        ("restormer_dual_pixel", "Restormer"),
        ("prenet_PReNet_LSTM", "PReNet or PReNet_LSTM"),
        ("prenet_PReNet_GRU", "PReNet_GRU"),
        ("prenet_PReNet_x", "PReNet_x"),
        ("prenet_PReNet_r", "PReNet_r"),
        ("prenet_PRN", "PRN"),
        ("prenet_PRN_r", "PRN_r"),
        ("mprnet_deraining", "MPRNet"),
        ("didmdn_eval", "DID-MDN's de-rainer"),
        ("didmdn_residual_eval", "DID-MDN's residual net"),
    ],
)
def test_systems_are_recognised(case, system):
    assert system_of(load_case(case).state_dict) == system


def test_layouts_of_this_project_are_recognised_and_others_are_not():
    with torch.device("meta"):
        dtpnet = build_network({"type": "DTPNet-T"}).state_dict()
        prenet = build_network({"type": "PReNet"}).state_dict()
    assert system_of(dtpnet) == "DTPNet (in this project's layout)"
    assert system_of(prenet) == "the PReNet family (in this project's layout)"
    assert system_of(nn.Linear(1, 1).state_dict()) is None


def test_prefixes_of_data_parallel_are_dropped():
    weights = load_case("prenet_PRN_r").state_dict
    net = from_released("PRN_r", {f"module.{key}": value for key, value in weights.items()})
    assert torch.equal(net.conv_out.weight, weights["conv.0.weight"])


def test_unknown_names_hints_and_networks_without_weights_are_refused():
    weights = load_case("prenet_PRN_r").state_dict
    with pytest.raises(OptionsError, match=r"no network is called 'PRNr' \(did you mean 'PRN_r'"):
        from_released("PRNr", weights)
    with pytest.raises(CheckpointError, match="PRN_r: 'iterations' is no hint for reading"):
        from_released("PRN_r", weights, iterations=6)
    with pytest.raises(CheckpointError, match="SPAIR: there are no published weights to read"):
        from_released("SPAIR", weights)


def test_sizes_out_of_range_are_refused():
    weights = {"conv0.0.weight": torch.empty(5000, 6, 3, 3, device="meta")}
    fault = "PReNet cannot have the sizes of these weights: channels: at most 4096 is allowed"
    with pytest.raises(CheckpointError, match=fault):
        from_released("PReNet", weights)


def test_misfits_are_listed_and_nothing_is_loaded():
    net = nn.Sequential(*(nn.Linear(1, 1) for _ in range(4)))
    before = net[0].weight.clone()
    given = {
        "0.weight": torch.full((1, 1), 9.0),
        "0.bias": torch.zeros(2),
        "7.bias": torch.zeros(1),
    }
    expected = (
        "the weights do not fit Sequential: missing: 1.weight, 1.bias, 2.weight and 3 more; "
        "surplus: 7.bias; of another shape: 0.bias is (2,), not (1,)"
    )
    with pytest.raises(CheckpointError) as caught:
        strict_load(net, given)
    assert str(caught.value) == expected
    assert torch.equal(net[0].weight, before)


def test_expansion_factors_are_read_off_the_hidden_channels():
    def released(dim: int, factor: float) -> Released:
        keys = {f"{i}.0.ffn.project_out.weight": int(dim * 2**i * factor) for i in range(4)}
        return Released("X", {key: torch.empty(1, hidden, 1, 1) for key, hidden in keys.items()})

    for dim, factor in ((48, 2.66), (64, 2.66), (8, 2.0), (48, 1.5), (16, 3.125)):
        found = released(dim, factor).expansion_factor(dim, ("0", "1", "2", "3"))
        for i in range(4):
            assert int(dim * 2**i * found) == int(dim * 2**i * factor)
    assert released(64, 2.66).expansion_factor(64, ("0", "1", "2", "3")) == 2.66
    with pytest.raises(CheckpointError, match="no single factor widens the feed-forward parts"):
        released(8, 2.0).expansion_factor(4, ("0", "2"))
