"""DTPNet: *Progressive network based on detail scaling and texture extraction: a more general
framework for image deraining*, Neurocomputing 568 (2024) 127066.

Detail dilation feeds a U-shaped network of transformer blocks (MFE down, MHS up), which draws a
coarse clean image; the progressive stage, a PReNet, starts from it and restores the rainy image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from basicsr.archs.prenet_arch import PReNet
from basicsr.archs.released import Released, strict_load
from basicsr.archs.rows import row_local, spent
from basicsr.archs.sizes import require_multiple
from basicsr.archs.transformer_blocks import (
    Blocks,
    Checkpointing,
    Downsample,
    FeedForwardType,
    TransformerBlock,
    Upsample,
    joined,
)
from basicsr.archs.vgg_features import WIDTHS, VGG16Features
from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import ARCH_REGISTRY

LEVELS = 4


def _resize(x: Tensor, factor: float) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


class DetailDilation(nn.Module):
    """Takes a band of enlarged image detail out of the image, then embeds it in `dim` channels.

    The authors embed image and band by the same convolution and subtract; it has no bias, so
    subtracting first is the same thing in half the work.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.detail = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.embed = nn.Conv2d(3, dim, 3, padding=1, bias=False)

    def forward(self, rainy: Tensor) -> Tensor:
        half = _resize(F.relu(self.detail(rainy)), 0.5)
        band = half - _resize(_resize(half, 0.5), 2)
        return self.embed(rainy - _resize(band, 2))


class ConvBlock(nn.Module):
    """x + conv(relu(conv(x))): what a transformer block is compared with."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(dim, dim, 3, padding=1, bias=False),
        )

    @row_local(halo=2)
    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class MultiScaleFeatureExtraction(nn.Module):
    """MFE, the encoder: blocks at four scales, each with twice the channels of the one above."""

    def __init__(self, levels: Sequence[nn.Module], dim: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(levels)
        self.downs = nn.ModuleList(Downsample(dim * 2**i) for i in range(LEVELS - 1))

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """What enters the blocks of the scales below the finest, and what leaves those of all."""
        entering, leaving = [], [self.levels[0](spent(x))]
        for down, blocks in zip(self.downs, self.levels[1:], strict=True):
            entering.append(down(leaving[-1]))
            leaving.append(blocks(entering[-1]))
        return entering, leaving


class MultiScaleHybrid(nn.Module):
    """MHS, the decoder. Each scale joins what comes from below with the encoder's features.

    With `scale_keep` it also gets, after its blocks, the upsampled features that entered the
    encoder's blocks one scale below.
    """

    def __init__(self, levels: Sequence[nn.Module], dim: int, scale_keep: bool) -> None:
        super().__init__()
        self.scale_keep = scale_keep
        widths = [dim * 2**i for i in range(LEVELS - 1)]
        self.levels = nn.ModuleList(levels)
        self.ups = nn.ModuleList(Upsample(2 * width) for width in widths)
        self.reduce = nn.ModuleList(nn.Conv2d(2 * width, width, 1, bias=False) for width in widths)

    def forward(self, entering: list[Tensor], leaving: list[Tensor]) -> Tensor:
        """Empties both lists: what is not needed any more leaves room for large images."""
        x = leaving.pop()
        for i in reversed(range(LEVELS - 1)):
            x = joined(self.ups[i], x, spent(leaving.pop()), self.reduce[i])
            x = self.levels[i](spent(x))
            if self.scale_keep:
                x = self._keeping(i, entering[i], spent(x))
            del entering[i]
        return x

    @row_local(halo=1)
    def _keeping(self, i: int, coarser: Tensor, x: Tensor) -> Tensor:
        return x + self.ups[i](coarser)


class CoarsestFeatureExtraction(nn.Module):
    """What MFE is after a stem of VGG16, whose features stand for its three finer scales.

    There no blocks lie between what enters and what leaves a scale, so the features are both.
    """

    def __init__(self, level: nn.Module) -> None:
        super().__init__()
        self.down = Downsample(WIDTHS[-1])
        self.level = level

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        below = self.down(features[-1])
        return [*features[1:], below], [*features, self.level(below)]


@ARCH_REGISTRY.register
class DTPNet(nn.Module):
    """The released network by default; the other options are what the paper compares.

    `num_blocks` counts the encoder's blocks at each of the four scales; its second number is also
    the count at every scale of the decoder, as in the released code. `recurrent_iter` passes of
    the progressive stage follow (0: the coarse image is the result), with `recurrent_channels`
    channels and, if `recurrent`, an LSTM. `stem: vgg16` needs `dim: 64`; its weights are
    torchvision's, downloaded or read from the file `vgg16_weights`.
    With `image_residual`, which is ours, the coarse image is the rainy one and what is drawn onto
    it, and every pass draws onto the one before: so small networks learn faster.
    `activation_checkpointing` saves memory in training: everything inside a block, or a selection
    that is cheap, is computed again for the gradient.

    Raises OptionsError where the numbers do not go together.
    """

    size_multiple = 2 ** (LEVELS - 1)

    def __init__(
        self,
        dim: int = 64,
        num_blocks: tuple[int, ...] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        heads: tuple[int, ...] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        recurrent_iter: int = 3,
        recurrent_channels: int = 32,
        recurrent: bool = True,
        stem: Literal["detail_dilation", "conv", "vgg16"] = "detail_dilation",
        vgg16_weights: str | None = None,
        blocks: Literal["transformer", "conv"] = "transformer",
        feed_forward: FeedForwardType = "gated_dconv",
        scale_keep: bool = True,
        image_residual: bool = False,
        activation_checkpointing: Checkpointing = "none",
    ) -> None:
        super().__init__()
        self.image_residual = image_residual
        for name, counts in (("num_blocks", num_blocks), ("heads", heads)):
            if len(counts) != LEVELS:
                raise OptionsError(f"{name}: {LEVELS} numbers are needed, not {len(counts)}")
            if min(counts) < 1:
                raise OptionsError(f"{name}: {min(counts)} at a scale; at least 1 is needed")
        # Both look at the whole image in a way that strips do not know.
        self.takes_rows = stem != "vgg16" and feed_forward != "attention_gated"
        if stem == "vgg16" and dim != WIDTHS[0]:
            raise OptionsError(f"stem: vgg16 needs dim: {WIDTHS[0]}, not {dim}")

        def block(width: int, heads: int) -> nn.Module:
            if blocks == "conv":
                return ConvBlock(width)
            return TransformerBlock(width, heads, ffn_expansion_factor, feed_forward=feed_forward)

        def level(i: int, count: int) -> Blocks:
            row = [block(dim * 2**i, heads[i]) for _ in range(count)]
            return Blocks(*row, checkpointing=activation_checkpointing)

        if stem == "vgg16":
            self.stem: nn.Module = VGG16Features(vgg16_weights)
            self.encoder: nn.Module = CoarsestFeatureExtraction(level(LEVELS - 1, num_blocks[-1]))
        else:
            self.stem = (
                DetailDilation(dim)
                if stem == "detail_dilation"
                else nn.Conv2d(3, dim, 3, padding=1, bias=False)
            )
            self.encoder = MultiScaleFeatureExtraction(
                [level(i, num_blocks[i]) for i in range(LEVELS)], dim
            )
        self.decoder = MultiScaleHybrid(
            [level(i, num_blocks[1]) for i in range(LEVELS - 1)], dim, scale_keep
        )
        self.refinement = level(0, num_refinement_blocks)
        self.to_image = nn.Conv2d(dim, 3, 3, padding=1, bias=False)
        self.progressive = (
            PReNet(
                recurrent_iter,
                recurrent_channels,
                "lstm" if recurrent else "none",
                image_residual="last" if image_residual else "rainy",
            )
            if recurrent_iter
            else None
        )

    def forward(self, rainy: Tensor, all_stages: bool = False) -> Tensor | list[Tensor]:
        """The restored image, or [coarse, restored]; [coarse] without a progressive stage."""
        require_multiple(rainy, self.size_multiple)
        features = self.decoder(*self.encoder(self._embedded(rainy)))
        stages = [self._drawn(self.refinement(spent(features)), rainy)]
        del features  # which leaves room for large images
        if self.progressive is not None:
            stages.append(self.progressive(rainy, start=stages[0]))
        return stages if all_stages else stages[-1]

    @row_local(halo=2 * size_multiple)
    def _embedded(self, rainy: Tensor) -> Tensor:
        return self.stem(rainy.contiguous(memory_format=torch.channels_last))

    @row_local(halo=1)
    def _drawn(self, features: Tensor, rainy: Tensor) -> Tensor:
        coarse = self.to_image(features).to(rainy.dtype)
        return coarse + rainy if self.image_residual else coarse

    def published_keys(self, key: str) -> list[str]:
        """What the authors' state dict calls the parameter `key`."""
        if key.startswith("progressive.") and self.progressive is not None:
            return self.progressive.published_keys(key.removeprefix("progressive."))
        for ours, theirs in _PUBLISHED_PREFIXES.items():
            if key.startswith(ours):
                return [theirs + key.removeprefix(ours)]
        return [key]

    @classmethod
    def from_released(cls, state_dict: Mapping[str, Tensor], recurrent_iter: int = 3) -> DTPNet:
        """The authors' weights. The number of passes does not show in them."""
        released = Released("DTPNet", state_dict)
        dim = released.shape("patch_embed.transform2.weight")[0]
        scales = [_PUBLISHED_PREFIXES[f"encoder.levels.{i}."][:-1] for i in range(LEVELS)]

        def network(passes: int) -> DTPNet:
            return cls(
                dim=dim,
                num_blocks=tuple(released.length(name) for name in scales),
                num_refinement_blocks=released.length("outc"),
                heads=tuple(released.shape(f"{name}.0.attn.temperature")[0] for name in scales),
                ffn_expansion_factor=released.expansion_factor(dim, scales),
                recurrent_iter=passes,
                recurrent_channels=released.shape("conv0.0.weight")[0],
            )

        net = network(max(1, recurrent_iter))
        strict_load(net, state_dict, net.published_keys)
        if recurrent_iter:
            return net
        coarse = network(0)
        strict_load(coarse, {key: net.state_dict()[key] for key in coarse.state_dict()})
        return coarse


_PUBLISHED_PREFIXES = {
    "stem.detail.": "patch_embed.transform1.0.",
    "stem.embed.": "patch_embed.transform2.",
    "encoder.levels.0.": "conv1_2.",
    "encoder.levels.1.": "conv2_3.",
    "encoder.levels.2.": "conv3_4.",
    "encoder.levels.3.": "conv4_L.",
    "encoder.downs.0.": "down1_2.",
    "encoder.downs.1.": "down2_3.",
    "encoder.downs.2.": "down3_4.",
    "decoder.ups.0.": "up2_1.",
    "decoder.ups.1.": "up3_2.",
    "decoder.ups.2.": "up4_3.",
    "decoder.reduce.0.": "reduce_chan_level1.",
    "decoder.reduce.1.": "reduce_chan_level2.",
    "decoder.reduce.2.": "reduce_chan_level3.",
    "decoder.levels.0.": "conv2_1_HSI.",
    "decoder.levels.1.": "conv3_2_HSI.",
    "decoder.levels.2.": "conv4_3_HSI.",
    "refinement.": "outc.",
    "to_image.": "conv_final.",
}

ARCH_REGISTRY.variant("DTPNet-S", DTPNet, dim=32)
ARCH_REGISTRY.variant(
    "DTPNet-T",
    DTPNet,
    dim=24,
    num_blocks=(1, 1, 2, 2),
    num_refinement_blocks=1,
    recurrent_iter=2,
    recurrent_channels=16,
    image_residual=True,
)
