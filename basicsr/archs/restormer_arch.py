"""Restormer: Efficient Transformer for High-Resolution Image Restoration (Zamir et al., CVPR 2022).

A U-shaped network of transformer blocks at four scales. Arguments and weights have the names of
the authors' code, github.com/swz30/Restormer.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from basicsr.archs.released import Released, strict_load
from basicsr.archs.rows import row_local, spent
from basicsr.archs.sizes import require_multiple
from basicsr.archs.transformer_blocks import (
    Blocks,
    Checkpointing,
    Downsample,
    NormType,
    TransformerBlock,
    Upsample,
    joined,
)
from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import ARCH_REGISTRY


class OverlapPatchEmbed(nn.Module):
    def __init__(self, inp_channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inp_channels, dim, 3, padding=1, bias=False)

    @row_local(halo=1)
    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image.contiguous(memory_format=torch.channels_last))


@ARCH_REGISTRY.register
class Restormer(nn.Module):
    """The deraining network by default.

    `LayerNorm_type: BiasFree` is the authors' choice for denoising. With `dual_pixel_task` the
    input is a left and a right view (6 channels), and the output is no correction of it.
    `activation_checkpointing` saves memory in training: everything inside a block, or a selection
    that is cheap, is computed again for the gradient.

    Raises OptionsError where the numbers do not go together.
    """

    size_multiple = 8
    takes_rows = True

    def __init__(
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: tuple[int, ...] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        heads: tuple[int, ...] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: NormType = "WithBias",
        dual_pixel_task: bool = False,
        activation_checkpointing: Checkpointing = "none",
    ) -> None:
        super().__init__()
        for name, counts in (("num_blocks", num_blocks), ("heads", heads)):
            if len(counts) != 4:
                raise OptionsError(f"{name}: 4 numbers are needed, not {len(counts)}")
            if min(counts) < 1:
                raise OptionsError(f"{name}: {min(counts)} at a scale; at least 1 is needed")
        if inp_channels != out_channels and not dual_pixel_task:
            raise OptionsError(
                f"out_channels: {out_channels} cannot be added to {inp_channels} inp_channels"
            )

        def blocks(width: int, heads: int, count: int) -> Blocks:
            row = (
                TransformerBlock(width, heads, ffn_expansion_factor, bias, LayerNorm_type)
                for _ in range(count)
            )
            return Blocks(*row, checkpointing=activation_checkpointing)

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
        self.output = nn.Conv2d(dim * 2, out_channels, 3, padding=1, bias=bias)

    def forward(self, image: Tensor, all_stages: bool = False) -> Tensor | list[Tensor]:
        """The restored image, or a list of just it."""
        require_multiple(image, self.size_multiple)
        embedded = self.patch_embed(image)
        fine = self.encoder_level1(spent(embedded) if self.skip_conv is None else embedded)
        if self.skip_conv is None:
            embedded = None  # what is not needed any more leaves room for large images
        middle = self.encoder_level2(spent(self.down1_2(fine)))
        coarse = self.encoder_level3(spent(self.down2_3(middle)))
        x = self.latent(spent(self.down3_4(coarse)))

        x = joined(self.up4_3, x, spent(coarse), self.reduce_chan_level3)
        x = self.decoder_level3(spent(x))
        x = joined(self.up3_2, x, spent(middle), self.reduce_chan_level2)
        x = self.decoder_level2(spent(x))
        x = joined(self.up2_1, x, fine)
        del fine
        x = self.refinement(spent(self.decoder_level1(spent(x))))
        restored = self._restored(image, x, embedded)
        return [restored] if all_stages else restored

    @row_local(halo=1)
    def _restored(self, image: Tensor, x: Tensor, embedded: Tensor | None) -> Tensor:
        if self.skip_conv is None:
            return self.output(x).to(image.dtype) + image
        return self.output(x + self.skip_conv(embedded)).to(image.dtype)

    @classmethod
    def from_released(cls, state_dict: Mapping[str, Tensor]) -> Restormer:
        """The authors' weights, of any of their tasks."""
        released = Released("Restormer", state_dict)
        dim, inp_channels, *_ = released.shape("patch_embed.proj.weight")
        scales = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
        net = cls(
            inp_channels=inp_channels,
            out_channels=released.shape("output.weight")[0],
            dim=dim,
            num_blocks=tuple(released.length(name) for name in scales),
            num_refinement_blocks=released.length("refinement"),
            heads=tuple(released.shape(f"{name}.0.attn.temperature")[0] for name in scales),
            ffn_expansion_factor=released.expansion_factor(dim, scales),
            bias="output.bias" in state_dict,
            LayerNorm_type=(
                "WithBias" if "encoder_level1.0.norm1.body.bias" in state_dict else "BiasFree"
            ),
            dual_pixel_task="skip_conv.weight" in state_dict,
        )
        strict_load(net, state_dict)
        return net
