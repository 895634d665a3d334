"""Restormer against the authors' code."""

from __future__ import annotations

import pytest
import torch
from golden import assert_matches, load_case

from basicsr.archs import build_network, from_released
from basicsr.utils.errors import CheckpointError, OptionsError

TINY = {"type": "Restormer", "dim": 8, "num_blocks": (1, 1, 1, 1), "num_refinement_blocks": 1}


@pytest.mark.parametrize(
    "case", ["restormer_withbias", "restormer_biasfree_gray", "restormer_dual_pixel"]
)
@torch.no_grad()
def test_output_is_the_published_one(case):
    golden = load_case(case)
    net = from_released("Restormer", golden.state_dict)
    assert_matches(net(golden.input), golden.outputs["restored"])
    count = sum(parameter.numel() for parameter in net.parameters())
    assert count == golden.facts["parameters"]


def test_options_have_the_published_names():
    golden = load_case("restormer_biasfree_gray")
    net = build_network({"type": "Restormer", **golden.facts["config"]})
    assert list(net.state_dict()) == list(golden.state_dict)


def test_size_of_the_deraining_network():
    with torch.device("meta"):
        net = build_network({"type": "Restormer"})
    assert sum(parameter.numel() for parameter in net.parameters()) == 26_126_644


@pytest.mark.parametrize("checkpointing", ["selective", "blocks"])
def test_checkpointing_gives_the_same_gradients(checkpointing):
    torch.manual_seed(0)
    plain = build_network(TINY)
    checkpointed = build_network({**TINY, "activation_checkpointing": checkpointing})
    checkpointed.load_state_dict(plain.state_dict())
    image = torch.rand(1, 3, 16, 24)
    for net in (plain, checkpointed):
        net(image).square().sum().backward()
    for one, other in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": (1, 2, 5, 8)}, "heads: 32 channels cannot be divided among 5 heads"),
        ({"num_blocks": (1, 1, 1)}, r"num_blocks\[3\]: required, but missing"),
        ({"num_blocks": (1, 1, 1, 0)}, r"num_blocks\[3\]: at least 1 is needed, not 0"),
        ({"inp_channels": 6}, "out_channels: 3 cannot be added to 6 inp_channels"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(OptionsError, match=message):
        build_network({**TINY, **options})


def test_weights_of_other_systems_are_refused_by_name():
    weights = load_case("dtpnet_dim16_iter2").state_dict
    with pytest.raises(CheckpointError, match=r"looks like a checkpoint of DTPNet$"):
        from_released("Restormer", weights)


def test_missing_and_surplus_keys_are_named():
    weights = load_case("restormer_withbias").state_dict
    weights["decoder_level2.2.attn.qkv.weight"] = weights.pop("output.weight")
    with pytest.raises(CheckpointError, match=r"'output\.weight' is missing"):
        from_released("Restormer", weights)
    weights["output.weight"] = weights.pop("down1_2.body.0.weight").repeat(1, 2, 1, 1)[:3]
    with pytest.raises(
        CheckpointError,
        match=r"missing: down1_2\.body\.0\.weight; surplus: decoder_level2\.2\.attn\.qkv\.weight",
    ):
        from_released("Restormer", weights)
