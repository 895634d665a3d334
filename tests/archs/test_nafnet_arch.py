"""NAFNet against a second implementation of its formulas, and the published numbers of weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from basicsr.archs import build_network, from_released
from basicsr.archs.nafnet_arch import Mean, NAFNet, NAFNetLocal
from basicsr.utils.errors import CheckpointError, OptionsError

SMALL = {"width": 4, "middle_blk_num": 1, "enc_blk_nums": (1, 2), "dec_blk_nums": (2, 1)}


@pytest.fixture
def small() -> NAFNet:
    torch.manual_seed(0)
    net = NAFNet(**SMALL).double().eval()
    for parameter in net.parameters():  # beta and gamma begin with zero
        torch.nn.init.normal_(parameter, std=0.3)
    return net


@pytest.mark.parametrize(
    ("options", "millions", "digits"),
    [
        ({"width": 32}, 29.16, 2),  # megvii-research/NAFNet, issue 60
        ({"width": 64}, 115.9, 0),  # issue 51
    ],
)
def test_published_numbers_of_parameters(options, millions, digits):
    with torch.device("meta"):
        net = build_network({"type": "NAFNet", **options})
    count = sum(p.numel() for p in net.parameters()) / 1e6
    assert round(count, digits) == round(millions, digits)


def block(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """Compute a block pixel by pixel, from its formulas."""

    def norm(name: str, y: Tensor) -> Tensor:
        mean, var = y.mean(1, keepdim=True), y.var(1, correction=0, keepdim=True)
        scale, shift = (weights[f"{name}.{each}"].view(1, -1, 1, 1) for each in ("weight", "bias"))
        return (y - mean) / (var + 1e-6).sqrt() * scale + shift

    def conv(name: str, y: Tensor, **more: int) -> Tensor:
        return F.conv2d(y, weights[f"{name}.weight"], weights[f"{name}.bias"], **more)

    def gated(y: Tensor) -> Tensor:
        return y[:, : y.shape[1] // 2] * y[:, y.shape[1] // 2 :]

    y = conv("conv1", norm("norm1", x))
    y = gated(conv("conv2", y, padding=1, groups=y.shape[1]))
    y = y * conv("sca.1", y.mean((2, 3), keepdim=True))
    x = x + weights["beta"] * conv("conv3", y)
    return x + weights["gamma"] * conv("conv5", gated(conv("conv4", norm("norm2", x))))


def test_a_block_follows_its_formulas(small):
    weights = {
        key.removeprefix("encoders.0.0."): value
        for key, value in small.state_dict().items()
        if key.startswith("encoders.0.0.")
    }
    x = torch.randn(2, 4, 6, 5, dtype=torch.float64)
    torch.testing.assert_close(small.encoders[0][0](x), block(weights, x))


def test_the_levels_are_joined_as_in_the_paper(small):
    image = torch.rand(1, 3, 8, 12, dtype=torch.float64)
    level1 = small.encoders[0](small.intro(image))
    level2 = small.encoders[1](small.downs[0](level1))
    x = small.middle_blks(small.downs[1](level2))
    x = small.decoders[0](F.pixel_shuffle(small.ups[0][0](x), 2) + level2)
    x = small.decoders[1](F.pixel_shuffle(small.ups[1][0](x), 2) + level1)
    torch.testing.assert_close(small(image), small.ending(x) + image)


def test_an_untrained_network_changes_the_image_by_two_convolutions_only():
    """beta and gamma are zero: all blocks are identities."""
    net = NAFNet(**SMALL)
    x = torch.rand(1, 4, 4, 4)
    assert torch.equal(net.encoders[1][1](torch.cat([x, x], 1)), torch.cat([x, x], 1))


@pytest.mark.parametrize(("height", "width"), [(9, 12), (4, 12), (9, 4), (7, 7)])
def test_means_over_windows(height, width):
    x = torch.rand(2, 3, height, width)
    window = 5
    means = Mean(window)(x)
    assert means.shape == x.shape
    rows, columns = min(window, height), min(window, width)
    for i in range(height):
        for j in range(width):
            top = min(max(i - (height - (height - rows + 1)) // 2, 0), height - rows)
            left = min(max(j - (width - (width - columns + 1)) // 2, 0), width - columns)
            expected = x[:, :, top : top + rows, left : left + columns].mean((2, 3))
            torch.testing.assert_close(means[:, :, i, j], expected)


def test_small_images_have_one_mean():
    x = torch.rand(2, 3, 5, 4)
    torch.testing.assert_close(Mean(5)(x), x.mean((2, 3), keepdim=True))
    torch.testing.assert_close(Mean(None)(x), x.mean((2, 3), keepdim=True))


def test_local_windows_are_one_and_a_half_patches_at_every_level():
    with torch.device("meta"):
        net = build_network({"type": "NAFNetLocal", "width": 4})
    windows = [level[0].sca[0].window for level in net.encoders]
    assert windows == [384, 192, 96, 48]
    assert net.middle_blks[0].sca[0].window == 24
    assert [level[0].sca[0].window for level in net.decoders] == [48, 96, 192, 384]


@torch.no_grad()
def test_local_and_global_networks_differ_on_large_images_only(small):
    options = {"type": "NAFNetLocal", **SMALL, "train_size": 16}
    local = build_network(options).double().eval()
    local.load_state_dict(small.state_dict())
    patch, image = (torch.rand(1, 3, side, side, dtype=torch.float64) for side in (24, 40))
    torch.testing.assert_close(local(patch), small(patch))
    assert (local(image) - small(image)).abs().max() > 1e-4


@pytest.mark.parametrize(
    "options",
    [SMALL, {**SMALL, "img_channel": 1, "middle_blk_num": 3}, {**SMALL, "enc_blk_nums": (1, 0)}],
)
def test_sizes_are_read_off_the_shapes(options):
    net = NAFNet(**options)
    read = from_released("NAFNet", net.state_dict())
    assert [len(level) for level in read.encoders] == list(options["enc_blk_nums"])
    image = torch.rand(1, options.get("img_channel", 3), 8, 8)
    torch.testing.assert_close(read(image), net(image), rtol=0, atol=0)
    assert from_released("NAFNetLocal", net.state_dict()).decoders[1][0].sca[0].window == 384


def test_other_weights_and_numbers_are_errors(small):
    state = small.state_dict()
    del state["intro.weight"]
    with pytest.raises(CheckpointError, match=r"'intro.weight' is missing; .* NAFNet"):
        from_released("NAFNet", state)
    with pytest.raises(OptionsError, match=r"dec_blk_nums: 1 levels, but enc_blk_nums has 2"):
        NAFNet(**{**SMALL, "dec_blk_nums": (1,)})
    with pytest.raises(OptionsError, match="train_size: 2 is too small for 2 levels"):
        NAFNetLocal(**SMALL, train_size=2)
