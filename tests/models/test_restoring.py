import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from basicsr.models.restoring import Restorer, pad_to, quantize

CPU = torch.device("cpu")


class Recorder(nn.Module):
    """Gives its input back and remembers the sizes it saw."""

    size_multiple = 8

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, x):
        self.sizes.append(tuple(x.shape[2:]))
        return x


def picture(height, width):
    return np.random.default_rng(height * 1000 + width).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )


@given(st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_any_size_is_padded_for_the_network_and_cropped_back(height, width):
    net = Recorder()
    image = picture(height, width)
    restored = Restorer(net, CPU)(image)
    assert restored.shape == image.shape
    assert np.array_equal(quantize(restored), image)
    assert net.sizes == [(-(-height // 8) * 8, -(-width // 8) * 8)]


def test_sixteen_bits_reach_the_network(device):
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1).repeat(3, axis=2)
    restored = Restorer(Recorder(), device)(levels)
    assert np.array_equal((restored * 65535).round().astype(np.uint16), levels)


def test_padding_reflects_and_then_repeats():
    x = torch.tensor([[1.0, 2.0, 3.0]])[None, None]
    padded = pad_to(x, 8, 8)
    assert padded.shape == (1, 1, 8, 8)
    assert padded[0, 0, 0].tolist() == [1, 2, 3, 2, 1, 1, 1, 1]
    assert torch.equal(padded[0, 0], padded[0, 0, :1].expand(8, 8))


@pytest.mark.parametrize(("height", "width"), [(20, 20), (33, 70), (64, 17)])
def test_tiles_of_a_local_network_give_the_whole_image(height, width):
    image = picture(height, width)
    net = Recorder()
    restored = Restorer(net, CPU, tile=24, tile_overlap=8)(image)
    assert np.abs(restored - image / 255).max() < 1e-6
    assert max(max(size) for size in net.sizes) <= 24
    assert len(net.sizes) > 1 or max(height, width) <= 24


def test_self_ensemble_averages_over_the_eight_views():
    class Ramp(nn.Module):
        """Adds a ramp that depends on the position, so that views differ."""

        size_multiple = 1

        def forward(self, x):
            return x + torch.linspace(-0.1, 0.1, x.shape[3])

    image = np.full((12, 12, 3), 128, np.uint8)
    once = Restorer(Ramp(), CPU)(image)
    assert np.ptp(once) > 0.15
    averaged = Restorer(Ramp(), CPU, self_ensemble=True)(image)
    assert np.abs(averaged - 128 / 255).max() < 1e-6


def test_self_ensemble_takes_rectangular_images():
    image = picture(10, 23)
    restored = Restorer(Recorder(), CPU, self_ensemble=True)(image)
    assert np.abs(restored - image / 255).max() < 1e-6


def test_the_result_is_clamped():
    class Bright(nn.Module):
        size_multiple = 1

        def forward(self, x):
            return x * 4 - 1

    restored = Restorer(Bright(), CPU)(picture(9, 9))
    assert restored.min() == 0
    assert restored.max() == 1


def test_quantize_rounds_or_truncates():
    values = np.array([0, 0.4 / 255, 0.6 / 255, 1.9 / 255, 1], np.float32)
    assert quantize(values, "round").tolist() == [0, 0, 1, 2, 255]
    assert quantize(values, "truncate").tolist() == [0, 0, 0, 1, 255]


def test_bf16_stays_close(device):
    torch.manual_seed(0)
    net = nn.Conv2d(3, 3, 3, padding=1)
    net.size_multiple = 1
    image = picture(16, 16)
    exact = Restorer(net, device)(image)
    rough = Restorer(net, device, precision="bf16")(image)
    assert 0 < np.abs(exact - rough).max() < 0.02
