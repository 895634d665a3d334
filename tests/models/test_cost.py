from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from basicsr.archs import build_network
from basicsr.models.cost import WARM_UP, latency, network_cost, training_memory


class Small(nn.Module):
    """Two convolutions with a ReLU between them, and the 3 x 3 channel products of each image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 3, 1, bias=False)
        self.calls = 0

    def forward(self, x: Tensor, all_stages: bool = False) -> Tensor | list[Tensor]:
        self.calls += 1
        restored = self.conv2(torch.relu(self.conv1(x)))
        with torch.no_grad():
            rows = restored.flatten(2)
            rows @ rows.transpose(1, 2)
        return [restored] if all_stages else restored


def test_a_small_network_by_hand():
    cost = network_cost(Small(), (2, 3, 10, 20))
    pixels = 2 * 10 * 20
    assert cost.parameters == 3 * 8 * 9 + 8 + 8 * 3
    assert cost.convolution_macs == pixels * (3 * 8 * 9 + 8 * 3)
    assert cost.macs == cost.convolution_macs + pixels * 3 * 3
    # the image for the first convolution's gradient; the ReLU's result for its own and the second's
    assert cost.activations == 4 * pixels * (3 + 8)


@pytest.mark.parametrize(
    ("name", "parameters", "giga_macs"),
    [("PReNet", 168_963, 63.83), ("PRN_r", 21_123, 37.26)],
)
def test_registered_networks_at_256(name, parameters, giga_macs):
    cost = network_cost(build_network({"type": name}), (1, 3, 256, 256))
    assert cost.parameters == parameters
    assert cost.macs / 1e9 == pytest.approx(giga_macs, abs=0.005)


def test_counting_works_for_any_size():
    small = network_cost(build_network({"type": "PRN_r"}), (1, 3, 64, 64))
    large = network_cost(build_network({"type": "PRN_r"}), (1, 3, 64 * 2**10, 64))
    assert large.macs == 2**10 * small.macs
    assert large.activations > 2**33


def test_training_memory_adds_weights_gradients_and_moments():
    network = Small()
    network.conv1.requires_grad_(False)
    assert training_memory(network, activations=1000, averaged=False) == 1000 + 16 * 24
    assert training_memory(network, activations=1000, averaged=True) == 1000 + 20 * 24


def test_latency(device):
    network = Small()
    measured = latency(network, (1, 3, 16, 16), device, runs=5)
    assert network.calls == WARM_UP + 5
    assert 0 < measured.lower <= measured.median <= measured.upper < 1


def test_latency_without_enough_memory(device):
    with pytest.raises(MemoryError):
        latency(Small(), (1, 3, 2**22, 2**22), device, runs=1)


def test_an_error_of_the_network_is_raised(device):
    with pytest.raises(RuntimeError, match="channels"):
        latency(Small(), (1, 4, 16, 16), device, runs=1)
