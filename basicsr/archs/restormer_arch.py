"""Restormer: Efficient Transformer for High-Resolution Image Restoration (Zamir et al., CVPR 2022).

A U-shaped network of transformer blocks at four levels. Arguments and weights have the names of
the authors' code, github.com/swz30/Restormer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from basicsr.archs.base import (
    Channels,
    CountOrNone,
    ExpansionFactor,
    FourCounts,
    RestorationNetwork,
)
from basicsr.archs.conv3x3 import Conv3x3
from basicsr.archs.released import Released, strict_load
from basicsr.archs.strips import row_local
from basicsr.archs.transformer_blocks import (
    Blocks,
    Checkpointing,
    Downsample,
    NormType,
    TransformerBlock,
    Upsample,
    merge,
)
from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import ARCH_REGISTRY


class OverlapPatchEmbed(nn.Module):
    """Embedding of the image by a 3x3 convolution."""

    def __init__(self, inp_channels: int, dim: int) -> None:
        super().__init__()
        self.proj = Conv3x3(inp_channels, dim, bias=False)

    @row_local(halo=1)
    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image.contiguous(memory_format=torch.channels_last))


@ARCH_REGISTRY.register
class Restormer(RestorationNetwork):
    """Restormer; the defaults are the published deraining network.

    Args:
        inp_channels: channels of the input images.
        out_channels: channels of the restored images; equal to `inp_channels` unless
            `dual_pixel_task`, as the output is added to the input.
        dim: channels at full resolution, doubled at each lower level.
        num_blocks: transformer blocks of the four levels, from full to 1/8 resolution.
        num_refinement_blocks: blocks after the decoder, at full resolution.
        heads: attention heads of the four levels.
        ffn_expansion_factor: hidden channels of the feed-forward parts, in multiples of `dim`.
        bias: whether convolutions have biases.
        LayerNorm_type: "BiasFree" is the authors' choice for denoising.
        dual_pixel_task: the input is a left and a right view (6 channels), and the embedded image
            is added to the features instead of the image to the output.
        activation_checkpointing: saves memory in training; see `transformer_blocks.Blocks`.

    Raises:
        OptionsError: The numbers are inconsistent.
    """

    size_multiple = 8
    supports_strips = True
    published_wrapper = "params"

    def __init__(
        self,
        inp_channels: Channels = 3,
        out_channels: Channels = 3,
        dim: Channels = 48,
        num_blocks: FourCounts = (4, 6, 6, 8),
        num_refinement_blocks: CountOrNone = 4,
        heads: FourCounts = (1, 2, 4, 8),
        ffn_expansion_factor: ExpansionFactor = 2.66,
        bias: bool = False,
        LayerNorm_type: NormType = "WithBias",
        dual_pixel_task: bool = False,
        activation_checkpointing: Checkpointing = "none",
    ) -> None:
        super().__init__(inp_channels, out_channels)
        if inp_channels != out_channels and not dual_pixel_task:
            raise OptionsError(
                f"out_channels: {out_channels} cannot be added to {inp_channels} inp_channels; "
                "make them equal"
            )

        def blocks(width: int, heads: int, count: int) -> Blocks:
            modules = (
                TransformerBlock(width, heads, ffn_expansion_factor, bias, LayerNorm_type)
                for _ in range(count)
            )
            return Blocks(*modules, checkpointing=activation_checkpointing)

        self.patch_embed = OverlapPatchEmbed(inp_channels, dim)
        self.encoder_level1 = blocks(dim, heads[0], num_blocks[0])
        self.down1_2 = Downsample(dim)
        self.encoder_level2 = blocks(dim * 2, heads[1], num_blocks[1])
        self.down2_3 = Downsample(dim * 2)
        self.encoder_level3 = blocks(dim * 4, heads[2], num_blocks[2])
        self.down3_4 = Downsample(dim * 4)
        self.latent = blocks(dim * 8, heads[3], num_blocks[3])

        self.up4_3 = Upsample(dim * 8)
        self.reduce_chan_level3 = nn.Conv2d(dim * 8, dim * 4, 1, bias=bias)
        self.decoder_level3 = blocks(dim * 4, heads[2], num_blocks[2])
        self.up3_2 = Upsample(dim * 4)
        self.reduce_chan_level2 = nn.Conv2d(dim * 4, dim * 2, 1, bias=bias)
        self.decoder_level2 = blocks(dim * 2, heads[1], num_blocks[1])
        self.up2_1 = Upsample(dim * 2)
        self.decoder_level1 = blocks(dim * 2, heads[0], num_blocks[0])

        self.refinement = blocks(dim * 2, heads[0], num_refinement_blocks)
        self.skip_conv = nn.Conv2d(dim, dim * 2, 1, bias=bias) if dual_pixel_task else None
        self.output = Conv3x3(dim * 2, out_channels, bias=bias)

    def forward(self, x: Tensor, all_stages: bool = False) -> Tensor | list[Tensor]:
        """Return the restored image, or a list of just it."""
        self.check_input(x)
        level1 = self.patch_embed(x)
        shortcut = x if self.skip_conv is None else level1

        level1 = self.encoder_level1(level1)
        level2 = self.encoder_level2(self.down1_2(level1))
        level3 = self.encoder_level3(self.down2_3(level2))
        latent = self.latent(self.down3_4(level3))

        level3 = merge(self.up4_3, latent, level3, self.reduce_chan_level3)
        level3 = self.decoder_level3(level3)
        level2 = merge(self.up3_2, level3, level2, self.reduce_chan_level2)
        level2 = self.decoder_level2(level2)
        level1 = merge(self.up2_1, level2, level1)
        level1 = self.decoder_level1(level1)

        restored = self._restored(x, self.refinement(level1), shortcut)
        return [restored] if all_stages else restored

    @row_local(halo=1)
    def _restored(self, x: Tensor, features: Tensor, shortcut: Tensor) -> Tensor:
        if self.skip_conv is None:
            return self.output(features).to(x.dtype) + shortcut
        return self.output(features + self.skip_conv(shortcut)).to(x.dtype)

    @classmethod
    def from_released(cls, state_dict: Mapping[str, Tensor]) -> Restormer:
        """Build the network from the authors' weights for any of their tasks."""
        released = Released("Restormer", state_dict)
        dim, inp_channels, *_ = released.shape("patch_embed.proj.weight")
        levels = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
        net = cls(
            inp_channels=inp_channels,
            out_channels=released.shape("output.weight")[0],
            dim=dim,
            num_blocks=cast(FourCounts, tuple(released.length(name) for name in levels)),
            num_refinement_blocks=released.length("refinement"),
            heads=cast(FourCounts, tuple(released.heads(name) for name in levels)),
            ffn_expansion_factor=released.expansion_factor(dim, levels),
            bias="output.bias" in state_dict,
            LayerNorm_type=(
                "WithBias" if "encoder_level1.0.norm1.body.bias" in state_dict else "BiasFree"
            ),
            dual_pixel_task="skip_conv.weight" in state_dict,
        )
        strict_load(net, state_dict)
        return net
