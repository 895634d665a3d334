"""The base class of networks, and what the registry checks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from basicsr.archs import RestorationNetwork, build_network, from_released, released_hints
from basicsr.utils.errors import CheckpointError, OptionsError
from basicsr.utils.registry import ARCH_REGISTRY, options_of


class Identity(RestorationNetwork):
    size_multiple = 8

    def forward(self, x, all_stages=False):
        self.check_input(x)
        return [x] if all_stages else x


def test_networks_that_do_not_keep_the_contract_are_not_registered():
    with pytest.raises(TypeError, match="Linear: a network must derive from RestorationNetwork"):
        ARCH_REGISTRY.register(nn.Linear)
    assert "Linear" not in ARCH_REGISTRY


def test_sides_are_rounded_up_to_the_multiple():
    assert [Identity().fitting_side(side) for side in (1, 8, 9)] == [8, 8, 16]


def test_images_that_do_not_fit_are_one_line():
    net = Identity(1, 1)
    assert net(torch.zeros(2, 1, 8, 16)).shape == (2, 1, 8, 16)
    with pytest.raises(ValueError, match=r"^Identity: 1-channel images are needed, not 3-chan"):
        net(torch.zeros(1, 3, 8, 8))
    fault = "^Identity: height and width must be multiples of 8, not 8x12$"
    with pytest.raises(ValueError, match=fault):
        net(torch.zeros(1, 1, 8, 12))


def test_outputs_are_added_to_the_image_or_to_the_mean_of_two_views():
    x = torch.rand(2, 6, 4, 4)
    assert Identity(6, 6).base_image(x) is x
    torch.testing.assert_close(Identity(6, 3).base_image(x), (x[:, :3] + x[:, 3:]) / 2)
    with pytest.raises(OptionsError, match="outputs of 3 channels cannot be added to inputs of 4"):
        Identity(4, 3).require_base_image()


def test_networks_without_published_weights():
    with pytest.raises(CheckpointError, match="Identity: there are no published weights to read"):
        Identity.from_released({})
    with pytest.raises(CheckpointError, match="SPAIR: there are no published weights to read"):
        from_released("SPAIR", {})
    assert released_hints("DTPNet") == {"recurrent_iter"}
    assert Identity().published_keys("conv.weight") == ("conv.weight",)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"type": "DTPNet", "dim": 0}, "dim: at least 1 is needed, not 0"),
        ({"type": "DTPNet", "dim": 10**6}, "dim: at most 4096 is allowed, not 1000000"),
        ({"type": "DTPNet", "dim": "a"}, "dim: expected a valid integer.*, not 'a'"),
        ({"type": "DTPNet", "dim": 8, "heads": (3, 1, 1, 1)}, "8 channels cannot be divided"),
        ({"type": "DTPNet", "num_refinement_blocks": -1}, "num_refinement_blocks: at least 0"),
        ({"type": "DTPNet", "num_refinement_blocks": 10**7}, "at most 1000 is allowed"),
        ({"type": "DTPNet", "recurrent_iter": -1}, "recurrent_iter: at least 0 is needed"),
        ({"type": "DTPNet", "ffn_expansion_factor": 0.0}, "ffn_expansion_factor: expected greater"),
        ({"type": "DTPNet", "dim": 2, "ffn_expansion_factor": 0.1}, "leaves no hidden channel"),
        ({"type": "DTPNet", "stem": "vgg"}, "stem: expected 'detail_dilation', 'conv' or 'vgg16'"),
        ({"type": "DTPNet", "in_channels": 4}, "of 3 channels cannot be added to inputs of 4"),
        ({"type": "Restormer", "num_blocks": (1, 1, 1, -1)}, r"num_blocks\[3\]: at least 1"),
        ({"type": "Restormer", "heads": (1,) * 5}, "heads: 4 numbers are needed, not 5"),
        ({"type": "PReNet", "channels": 0}, "channels: at least 1 is needed"),
        ({"type": "PReNet", "in_channels": 1}, "of 3 channels cannot be added to inputs of 1"),
        ({"type": "MPRNet", "reduction": 50}, "reduction is 50; make it at most n_feat"),
        ({"type": "MPRNet", "num_cab": 0}, "num_cab: at least 1 is needed"),
        ({"type": "SPAIR", "grid": 0}, "grid: at least 1 is needed"),
        ({"type": "DIDMDNDerainer", "label": -1}, "label: at least 0 is needed, not -1"),
    ],
)
def test_arguments_out_of_range_are_refused_in_one_line(options: dict[str, Any], fault: str):
    with pytest.raises(OptionsError, match=fault) as refused:
        build_network(options)
    assert "\n" not in str(refused.value)


def test_classes_check_their_arguments_like_the_registry():
    cls: Any = ARCH_REGISTRY.entry("PReNet").cls
    with pytest.raises(OptionsError, match="recurrent_iter: at least 1 is needed, not 0"):
        cls(recurrent_iter=0)


def test_options_of_a_network_rebuild_it():
    net = build_network({"type": "DTPNet-T", "dim": 8, "in_channels": 6})
    options = options_of(net)
    assert (options["type"], options["dim"], options["in_channels"]) == ("DTPNet", 8, 6)
    shapes = {key: value.shape for key, value in net.state_dict().items()}
    rebuilt = build_network(options).state_dict()
    assert {key: value.shape for key, value in rebuilt.items()} == shapes
