"""NAFNet: *Simple Baselines for Image Restoration* (Chen et al., ECCV 2022).

A U-shaped network without nonlinear activations: halves of the channels are multiplied with each
other. Arguments and weights have the names of the authors' code, github.com/megvii-research/NAFNet.
`NAFNetLocal` has their test-time local converter (TLC; Chu et al., ECCV 2022), which takes channel
attention's means over windows of one and a half training patches instead of the whole image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from basicsr.archs.base import Channels, CountOrNone, RestorationNetwork
from basicsr.archs.conv3x3 import Conv3x3
from basicsr.archs.released import Released, strict_load
from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import ARCH_REGISTRY

Counts = Annotated[tuple[CountOrNone, ...], Field(min_length=1, max_length=8)]  # for each level
TrainSize = Annotated[int, Field(ge=1, le=2**16)]


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of every pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.permute(0, 2, 3, 1)
        normalised = F.layer_norm(pixels, self.weight.shape, self.weight, self.bias, eps=1e-6)
        return normalised.permute(0, 3, 1, 2)


def gate(x: Tensor) -> Tensor:
    """Return the product of the two halves of the channels (SimpleGate)."""
    first, second = x.chunk(2, dim=1)
    return first * second


class Mean(nn.Module):
    """Mean over the image: N x C x 1 x 1; or over a `window` around every pixel: N x C x H x W.

    Windows do not reach beyond the image: near its borders, means of the nearest whole window.
    """

    def __init__(self, window: int | None = None) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if self.window is None or self.window >= max(height, width):
            return x.mean((2, 3), keepdim=True)
        # sums of whole images lose precision in half the bits
        means = _mean_along(_mean_along(x.float(), 2, self.window), 3, self.window)
        below, right = height - means.shape[2], width - means.shape[3]
        borders = (right // 2, right - right // 2, below // 2, below - below // 2)
        return F.pad(means, borders, mode="replicate").to(x.dtype)


def _mean_along(x: Tensor, axis: int, window: int) -> Tensor:
    """Return the means of all windows along an axis."""
    window = min(window, x.shape[axis])
    sums = x.cumsum(axis)
    zero = torch.zeros_like(sums.narrow(axis, 0, 1))
    sums = torch.cat([zero, sums], axis)
    count = x.shape[axis] - window + 1
    return (sums.narrow(axis, window, count) - sums.narrow(axis, 0, count)) / window


class NAFBlock(nn.Module):
    """x + beta * (gated depthwise part with channel attention), then the same with a plain part."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        double = 2 * channels
        self.norm1 = LayerNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, double, 1)
        self.conv2 = nn.Conv2d(double, double, 3, padding=1, groups=double)
        self.sca = nn.Sequential(Mean(), nn.Conv2d(channels, channels, 1))
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.norm2 = LayerNorm2d(channels)
        self.conv4 = nn.Conv2d(channels, double, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        features = gate(self.conv2(self.conv1(self.norm1(x))))
        x = x + self.beta * self.conv3(features * self.sca(features))
        return x + self.gamma * self.conv5(gate(self.conv4(self.norm2(x))))


@ARCH_REGISTRY.register
class NAFNet(RestorationNetwork):
    """NAFNet; the defaults are the published network of width 32 for SIDD.

    For GoPro, the authors have `enc_blk_nums` 1, 1, 1, 28 and one block everywhere else.

    Args:
        img_channel: channels of the images.
        width: channels at full resolution, doubled at each lower level.
        middle_blk_num: blocks at the lowest level.
        enc_blk_nums: blocks of the encoder's levels, from full resolution on.
        dec_blk_nums: blocks of the decoder's levels, from the lowest on.

    Raises:
        OptionsError: The numbers are inconsistent.
    """

    def __init__(
        self,
        img_channel: Channels = 3,
        width: Channels = 32,
        middle_blk_num: CountOrNone = 12,
        enc_blk_nums: Counts = (2, 2, 4, 8),
        dec_blk_nums: Counts = (2, 2, 2, 2),
    ) -> None:
        super().__init__(img_channel, img_channel)
        levels = len(enc_blk_nums)
        if len(dec_blk_nums) != levels:
            raise OptionsError(
                f"dec_blk_nums: {len(dec_blk_nums)} levels, but enc_blk_nums has {levels}; make "
                "them equal"
            )
        self.size_multiple = 2**levels

        def blocks(level: int, count: int) -> nn.Sequential:
            return nn.Sequential(*(NAFBlock(width * 2**level) for _ in range(count)))

        self.intro = Conv3x3(img_channel, width)
        self.encoders = nn.ModuleList(blocks(i, count) for i, count in enumerate(enc_blk_nums))
        widths = [width * 2**level for level in range(levels)]
        self.downs = nn.ModuleList(nn.Conv2d(each, 2 * each, 2, stride=2) for each in widths)
        self.middle_blks = blocks(levels, middle_blk_num)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * each, 4 * each, 1, bias=False), nn.PixelShuffle(2))
            for each in reversed(widths)
        )
        self.decoders = nn.ModuleList(
            blocks(levels - 1 - i, count) for i, count in enumerate(dec_blk_nums)
        )
        self.ending = Conv3x3(width, img_channel)

    def forward(self, x: Tensor, all_stages: bool = False) -> Tensor | list[Tensor]:
        """Return the restored image, or a list of just it."""
        self.check_input(x)
        features = self.intro(x)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            skips.append(encoder(features))
            features = down(skips[-1])
        features = self.middle_blks(features)
        for decoder, up in zip(self.decoders, self.ups, strict=True):
            features = decoder(up(features) + skips.pop())
        restored = self.ending(features).to(x.dtype) + x
        return [restored] if all_stages else restored

    @classmethod
    def from_released(cls, state_dict: Mapping[str, Tensor]) -> NAFNet:
        """Build the network from the authors' weights for any of their tasks."""
        net = cls(**_released_sizes(state_dict))
        strict_load(net, state_dict)
        return net


@ARCH_REGISTRY.register
class NAFNetLocal(NAFNet):
    """NAFNet whose channel attention takes means over windows; for patches, it is NAFNet.

    Args:
        img_channel: as in NAFNet.
        width: as in NAFNet.
        middle_blk_num: as in NAFNet.
        enc_blk_nums: as in NAFNet.
        dec_blk_nums: as in NAFNet.
        train_size: side of the training patches in pixels; windows have one and a half of it.

    Raises:
        OptionsError: The numbers are inconsistent.
    """

    def __init__(
        self,
        img_channel: Channels = 3,
        width: Channels = 32,
        middle_blk_num: CountOrNone = 12,
        enc_blk_nums: Counts = (2, 2, 4, 8),
        dec_blk_nums: Counts = (2, 2, 2, 2),
        train_size: TrainSize = 256,
    ) -> None:
        super().__init__(img_channel, width, middle_blk_num, enc_blk_nums, dec_blk_nums)
        levels = len(enc_blk_nums)
        window = int(1.5 * train_size)
        if window < 2**levels:
            raise OptionsError(f"train_size: {train_size} is too small for {levels} levels")
        for level, blocks in enumerate((*self.encoders, self.middle_blks)):
            _set_window(blocks, window // 2**level)
        for level, blocks in enumerate(reversed(self.decoders)):
            _set_window(blocks, window // 2**level)

    @classmethod
    def from_released(
        cls, state_dict: Mapping[str, Tensor], train_size: TrainSize = 256
    ) -> NAFNetLocal:
        """Build the network from the authors' weights, which do not reveal `train_size`."""
        net = cls(**_released_sizes(state_dict), train_size=train_size)
        strict_load(net, state_dict)
        return net


def _set_window(blocks: nn.Module, window: int) -> None:
    for module in blocks.modules():
        if isinstance(module, Mean):
            module.window = window


def _released_sizes(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of the network that has these weights."""
    released = Released("NAFNet", state_dict)
    width, img_channel, *_ = released.shape("intro.weight")
    levels = range(released.length("downs"))

    def count(name: str) -> int:
        return sum(re.fullmatch(rf"{name}\.\d+\.beta", key) is not None for key in state_dict)

    return {
        "img_channel": img_channel,
        "width": width,
        "middle_blk_num": count("middle_blks"),
        "enc_blk_nums": tuple(count(f"encoders.{i}") for i in levels),
        "dec_blk_nums": tuple(count(f"decoders.{i}") for i in levels),
    }
