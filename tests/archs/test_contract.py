"""The contract of every registered network; a new network is tested here by being registered.

Networks with options for their channels are tested with 1 and 6 input channels too.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from basicsr.archs import RestorationNetwork, build_network, strict_load
from basicsr.utils.registry import ARCH_REGISTRY

SMALL = {"dim": 8, "num_blocks": (1, 1, 1, 1), "num_refinement_blocks": 1}
OTHER_CHANNELS: list[dict[str, Any]] = [
    {"type": "DTPNet", **SMALL, "in_channels": 1, "out_channels": 1},
    {"type": "DTPNet", **SMALL, "in_channels": 6},
    {"type": "DTPNet", **SMALL, "in_channels": 6, "image_residual": True},
    {"type": "DTPNet", **SMALL, "in_channels": 2, "out_channels": 5, "recurrent_iter": 0},
    {"type": "Restormer", **SMALL, "inp_channels": 1, "out_channels": 1},
    {"type": "Restormer", **SMALL, "inp_channels": 6, "dual_pixel_task": True},
    {"type": "MPRNet", "n_feat": 8, "num_cab": 1, "in_c": 1, "out_c": 1},
    {"type": "MPRNet", "n_feat": 8, "num_cab": 1, "in_c": 6, "out_c": 6},
    {"type": "NAFNet", "width": 8, "img_channel": 1},
    {"type": "PReNet", "channels": 8, "in_channels": 1, "out_channels": 1},
    {"type": "PReNet", "channels": 8, "in_channels": 6},
    {"type": "PReNet_x", "channels": 8, "in_channels": 6},
    {"type": "SPAIR", "dim": 8, "localization_dim": 8, "in_channels": 1, "out_channels": 1},
    {"type": "SPAIR", "dim": 8, "localization_dim": 8, "in_channels": 6},
]
NETWORKS = [*({"type": name} for name in ARCH_REGISTRY.names()), *OTHER_CHANNELS]


def describe(options: dict[str, Any]) -> str:
    return "-".join(f"{key}={value}" for key, value in options.items() if key not in SMALL)


@pytest.fixture(scope="module", params=NETWORKS, ids=describe)
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


@pytest.fixture(scope="module")
def net(options: dict[str, Any]) -> RestorationNetwork:
    torch.manual_seed(0)
    return build_network(options)


@pytest.fixture(scope="module")
def images(net: RestorationNetwork) -> Tensor:
    """Two images of about the smallest size, higher than wide."""
    side = net.fitting_side(8)
    torch.manual_seed(1)
    return torch.rand(2, net.in_channels, 2 * side, side)


@pytest.fixture(scope="module")
def restored(net: RestorationNetwork, images: Tensor) -> Tensor:
    before = images.clone()
    with torch.no_grad():
        result = net.eval()(images)
    assert torch.equal(images, before)
    return result


@torch.no_grad()
def test_restores_every_image_of_a_batch_to_its_own_size(net, images, restored):
    assert restored.shape == (2, net.out_channels, *images.shape[2:])
    assert restored.dtype == images.dtype
    assert restored.isfinite().all()
    stages = net.eval()(images, all_stages=True)
    assert isinstance(stages, list)
    assert all(stage.shape[0] == 2 and stage.shape[2:] == images.shape[2:] for stage in stages)
    assert torch.equal(stages[-1], restored)  # a second run gives the same result


@torch.no_grad()
def test_an_image_does_not_depend_on_its_batch(net, images, restored):
    if not net.independent_images:
        pytest.skip("the network states that images of a batch influence each other")
    net.eval()
    for image, expected in zip(images, restored, strict=True):
        torch.testing.assert_close(net(image[None])[0], expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_sides_that_are_not_multiples_are_refused(net, images):
    net.eval()
    if net.size_multiple == 1:
        height, width = images.shape[2] - 1, images.shape[3] - 3
        assert net(images[..., 1:, 3:]).shape == (2, net.out_channels, height, width)
        return
    for wrong in (images[..., 1:, :], images[..., :-1]):
        with pytest.raises(ValueError, match=f"multiples of {net.size_multiple}"):
            net(wrong)


@torch.no_grad()
def test_images_with_another_number_of_channels_are_refused(net, images):
    wrong = torch.cat([images, images[:, :1]], dim=1)
    with pytest.raises(ValueError, match=f"{net.in_channels}-channel images are needed"):
        net.eval()(wrong)


@torch.no_grad()
def test_weights_are_the_whole_network(options, net, images, restored):
    torch.manual_seed(2)
    other = build_network(options).eval()
    strict_load(other, net.state_dict())
    assert torch.equal(other(images), restored)


def test_gradients_reach_every_parameter_that_learns(net, images):
    net.train().zero_grad()
    stages = net(images, all_stages=True)
    sum((stage - 0.3).square().sum() for stage in stages).backward()
    unreached = [
        name
        for name, parameter in net.named_parameters()
        if parameter.requires_grad
        and (parameter.grad is None or not parameter.grad.isfinite().all())
    ]
    assert unreached == []
    assert sum(p.grad.abs().sum() for p in net.parameters() if p.grad is not None) > 0
    net.zero_grad()
