"""DTPNet: *Progressive network based on detail scaling and texture extraction: a more general
framework for image deraining*, Neurocomputing 568 (2024) 127066.

Detail dilation feeds a U-shaped network of transformer blocks (encoder MFE, decoder MHS), which
restores a coarse image. The progressive stage, a PReNet, starts from the coarse image and refines
it with the degraded image as its second input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from basicsr.archs.base import (
    Channels,
    CountOrNone,
    ExpansionFactor,
    FourCounts,
    RestorationNetwork,
)
from basicsr.archs.conv3x3 import Conv3x3
from basicsr.archs.prenet_arch import PReNet
from basicsr.archs.released import Released, strict_load
from basicsr.archs.strips import row_local
from basicsr.archs.transformer_blocks import (
    Blocks,
    Checkpointing,
    Downsample,
    FeedForwardType,
    NormType,
    TransformerBlock,
    Upsample,
    merge,
)
from basicsr.archs.vgg_features import WIDTHS, VGG16Features
from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import ARCH_REGISTRY

LEVELS = 4


def _resize(x: Tensor, factor: float) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


class DetailDilation(nn.Module):
    """Subtraction of a band of enlarged image detail, and embedding in `dim` channels.

    The authors embed image and band by the same convolution and subtract. As it has no bias,
    subtracting first gives the same result at half the cost.
    """

    def __init__(self, dim: int, in_channels: int = 3) -> None:
        super().__init__()
        self.detail = Conv3x3(in_channels, in_channels, bias=False)
        self.embed = Conv3x3(in_channels, dim, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        half = _resize(F.relu(self.detail(image)), 0.5)
        band = half - _resize(_resize(half, 0.5), 2)
        return self.embed(image - _resize(band, 2))


class ConvBlock(nn.Module):
    """x + conv(relu(conv(x))): the alternative that the paper compares transformer blocks with."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            Conv3x3(dim, dim, bias=False),
            nn.ReLU(),
            Conv3x3(dim, dim, bias=False),
        )

    @row_local(halo=2)
    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class MultiScaleFeatureExtraction(nn.Module):
    """MFE, the encoder: blocks at four levels, each with twice the channels of the one above."""

    def __init__(self, levels: list[nn.Module], dim: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(levels)
        self.downs = nn.ModuleList(Downsample(dim * 2**i) for i in range(LEVELS - 1))

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the inputs of levels 2 to 4 and the outputs of all four levels."""
        inputs, outputs = [], [self.levels[0](x)]
        for down, blocks in zip(self.downs, self.levels[1:], strict=True):
            inputs.append(down(outputs[-1]))
            outputs.append(blocks(inputs[-1]))
        return inputs, outputs


class MultiScaleHybrid(nn.Module):
    """MHS, the decoder, which merges upsampled features with the encoder's at every level.

    With `scale_keep`, the upsampled input of the encoder's next lower level is added to the result
    of each level.
    """

    def __init__(self, levels: list[nn.Module], dim: int, scale_keep: bool) -> None:
        super().__init__()
        self.scale_keep = scale_keep
        widths = [dim * 2**i for i in range(LEVELS - 1)]
        self.levels = nn.ModuleList(levels)
        self.ups = nn.ModuleList(Upsample(2 * width) for width in widths)
        self.reduce = nn.ModuleList(nn.Conv2d(2 * width, width, 1, bias=False) for width in widths)

    def forward(self, inputs: list[Tensor], outputs: list[Tensor]) -> Tensor:
        """Return features at full resolution. Both lists of the encoder are emptied."""
        x = outputs.pop()
        for i in reversed(range(LEVELS - 1)):
            x = self.levels[i](merge(self.ups[i], x, outputs.pop(), self.reduce[i]))
            lower = inputs.pop()
            if self.scale_keep:
                x = self._keep_scale(i, lower, x)
        return x

    @row_local(halo=1)
    def _keep_scale(self, i: int, lower: Tensor, x: Tensor) -> Tensor:
        return x + self.ups[i](lower)


class CoarsestFeatureExtraction(nn.Module):
    """Encoder after a stem of VGG16, whose features replace those of the three finer levels.

    These levels have no blocks, so that their inputs and outputs are the same.
    """

    def __init__(self, level: nn.Module) -> None:
        super().__init__()
        self.down = Downsample(WIDTHS[-1])
        self.level = level

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        lower = self.down(features[-1])
        return [*features[1:], lower], [*features, self.level(lower)]


@ARCH_REGISTRY.register
class DTPNet(RestorationNetwork):
    """DTPNet; the defaults are the released network, and other options what the paper compares.

    With twice as many input as output channels (a left and a right view), the mean of the two views
    is the image that outputs are added to.

    Args:
        in_channels: channels of the input images.
        out_channels: channels of the restored images.
        dim: channels at full resolution, doubled at each lower level.
        num_blocks: blocks of the encoder's four levels, from full to 1/8 resolution. As in the
            released code, the second number is also the count at every level of the decoder.
        num_refinement_blocks: blocks after the decoder, at full resolution.
        heads: attention heads of the four levels.
        ffn_expansion_factor: hidden channels of the feed-forward parts, in multiples of `dim`.
        recurrent_iter: passes of the progressive stage; with 0 the coarse image is the result.
        recurrent_channels: channels of the progressive stage.
        recurrent: whether the progressive stage has an LSTM.
        stem: embedding of the image; "vgg16" needs `dim: 64` and 3-channel images.
        vgg16_weights: file of torchvision's VGG16 weights, which are downloaded without it.
        blocks: "conv" replaces the transformer blocks.
        feed_forward: "attention_gated" has the attentions of the paper's figure (C).
        LayerNorm_type: "BiasFree" is the choice of Restormer's authors for denoising.
        scale_keep: add the encoder's inputs to the decoder's outputs (multiscale coupling).
        image_residual: our addition: the coarse image is a correction of the input, and every pass
            corrects the result before. Small networks learn faster so.
        activation_checkpointing: saves memory in training; see `transformer_blocks.Blocks`.

    Raises:
        OptionsError: The numbers are inconsistent.
    """

    size_multiple = 2 ** (LEVELS - 1)

    def __init__(
        self,
        in_channels: Channels = 3,
        out_channels: Channels = 3,
        dim: Channels = 64,
        num_blocks: FourCounts = (4, 6, 6, 8),
        num_refinement_blocks: CountOrNone = 4,
        heads: FourCounts = (1, 2, 4, 8),
        ffn_expansion_factor: ExpansionFactor = 2.66,
        recurrent_iter: CountOrNone = 3,
        recurrent_channels: Channels = 32,
        recurrent: bool = True,
        stem: Literal["detail_dilation", "conv", "vgg16"] = "detail_dilation",
        vgg16_weights: str | None = None,
        blocks: Literal["transformer", "conv"] = "transformer",
        feed_forward: FeedForwardType = "gated_dconv",
        LayerNorm_type: NormType = "WithBias",
        scale_keep: bool = True,
        image_residual: bool = False,
        activation_checkpointing: Checkpointing = "none",
    ) -> None:
        super().__init__(in_channels, out_channels)
        self.image_residual = image_residual
        if image_residual or recurrent_iter:
            self.require_base_image()
        if stem == "vgg16" and (dim, in_channels) != (WIDTHS[0], 3):
            raise OptionsError(
                f"stem: vgg16 needs dim: {WIDTHS[0]}, not {dim}, and in_channels: 3, "
                f"not {in_channels}"
            )
        # Strips do not cover VGG16's list of features, nor attention over whole channels.
        self.supports_strips = stem != "vgg16" and feed_forward != "attention_gated"

        def block(width: int, heads: int) -> nn.Module:
            if blocks == "conv":
                return ConvBlock(width)
            return TransformerBlock(
                width, heads, ffn_expansion_factor, norm=LayerNorm_type, feed_forward=feed_forward
            )

        def level(i: int, count: int) -> Blocks:
            modules = [block(dim * 2**i, heads[i]) for _ in range(count)]
            return Blocks(*modules, checkpointing=activation_checkpointing)

        if stem == "vgg16":
            self.stem: nn.Module = VGG16Features(vgg16_weights)
            self.encoder: nn.Module = CoarsestFeatureExtraction(level(LEVELS - 1, num_blocks[-1]))
        else:
            self.stem = (
                DetailDilation(dim, in_channels)
                if stem == "detail_dilation"
                else Conv3x3(in_channels, dim, bias=False)
            )
            self.encoder = MultiScaleFeatureExtraction(
                [level(i, num_blocks[i]) for i in range(LEVELS)], dim
            )
        self.decoder = MultiScaleHybrid(
            [level(i, num_blocks[1]) for i in range(LEVELS - 1)], dim, scale_keep
        )
        self.refinement = level(0, num_refinement_blocks)
        self.to_image = Conv3x3(dim, out_channels, bias=False)
        self.progressive: PReNet | None = None
        if recurrent_iter:
            self.progressive = PReNet(
                recurrent_iter,
                recurrent_channels,
                "lstm" if recurrent else "none",
                image_residual="last" if image_residual else "rainy",
                in_channels=in_channels,
                out_channels=out_channels,
            )

    def forward(self, x: Tensor, all_stages: bool = False) -> Tensor | list[Tensor]:
        """Return the restored image, or [coarse, restored]; [coarse] without progressive stage."""
        self.check_input(x)
        stages = [self._coarse_image(x)]
        if self.progressive is not None:
            stages.append(self.progressive(x, start=stages[0]))
        return stages if all_stages else stages[-1]

    def _coarse_image(self, x: Tensor) -> Tensor:
        features = self.decoder(*self.encoder(self._embed(x)))
        return self._to_image(self.refinement(features), x)

    @row_local(halo=2 * size_multiple)
    def _embed(self, x: Tensor) -> Tensor:
        return self.stem(x.contiguous(memory_format=torch.channels_last))

    @row_local(halo=1)
    def _to_image(self, features: Tensor, x: Tensor) -> Tensor:
        coarse = self.to_image(features).to(x.dtype)
        return coarse + self.base_image(x) if self.image_residual else coarse

    def published_keys(self, key: str) -> list[str]:
        """Return the name of the parameter `key` in the authors' state dict."""
        if key.startswith("progressive.") and self.progressive is not None:
            return self.progressive.published_keys(key.removeprefix("progressive."))
        for ours, theirs in _PUBLISHED_PREFIXES.items():
            if key.startswith(ours):
                return [theirs + key.removeprefix(ours)]
        return [key]

    @classmethod
    def from_released(cls, state_dict: Mapping[str, Tensor], recurrent_iter: int = 3) -> DTPNet:
        """Build the network from the authors' weights, which do not reveal the number of passes."""
        released = Released("DTPNet", state_dict)
        dim = released.shape("patch_embed.transform2.weight")[0]
        levels = [_PUBLISHED_PREFIXES[f"encoder.levels.{i}."][:-1] for i in range(LEVELS)]

        def network(passes: int) -> DTPNet:
            return cls(
                dim=dim,
                num_blocks=cast(FourCounts, tuple(released.length(name) for name in levels)),
                num_refinement_blocks=released.length("outc"),
                heads=cast(FourCounts, tuple(released.heads(name) for name in levels)),
                ffn_expansion_factor=released.expansion_factor(dim, levels),
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
