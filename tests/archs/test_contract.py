"""What every registered network keeps to. A new one is tested here by being registered.

Networks may differ in one thing, and say so by a class attribute: `independent_of_batch = False`
where an image's result depends on the images beside it.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from basicsr.archs import build_network, strict_load
from basicsr.utils.registry import ARCH_REGISTRY


@pytest.fixture(scope="module", params=ARCH_REGISTRY.names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def net(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_network({"type": name})


@pytest.fixture(scope="module")
def images(net: nn.Module) -> Tensor:
    """Two images of about the smallest size, higher than wide."""
    side = max(net.size_multiple, 8)
    torch.manual_seed(1)
    return torch.rand(2, 3, 2 * side, side)


@pytest.fixture(scope="module")
def restored(net: nn.Module, images: Tensor) -> Tensor:
    before = images.clone()
    with torch.no_grad():
        result = net.eval()(images)
    assert torch.equal(images, before)
    return result


@torch.no_grad()
def test_restores_every_image_of_a_batch_to_its_own_size(net, images, restored):
    assert restored.shape == images.shape
    assert restored.dtype == images.dtype
    assert restored.isfinite().all()
    stages = net.eval()(images, all_stages=True)
    assert isinstance(stages, list)
    assert all(stage.shape[0] == 2 and stage.shape[2:] == images.shape[2:] for stage in stages)
    assert torch.equal(stages[-1], restored)  # and so twice the same


@torch.no_grad()
def test_an_image_does_not_depend_on_its_batch(net, images, restored):
    if not getattr(net, "independent_of_batch", True):
        pytest.skip("says that it depends on its batch")
    net.eval()
    for image, expected in zip(images, restored, strict=True):
        torch.testing.assert_close(net(image[None])[0], expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_sides_that_are_no_multiples_are_refused(net, images):
    net.eval()
    if net.size_multiple == 1:
        assert net(images[..., 1:, 3:]).shape == (2, 3, images.shape[2] - 1, images.shape[3] - 3)
        return
    for wrong in (images[..., 1:, :], images[..., :-1]):
        with pytest.raises(ValueError, match=f"multiples of {net.size_multiple}"):
            net(wrong)


@torch.no_grad()
def test_weights_are_the_whole_network(name, net, images, restored):
    torch.manual_seed(2)
    other = build_network({"type": name}).eval()
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
