"""MPRNet: Multi-Stage Progressive Image Restoration (Zamir et al., CVPR 2021).

Stage 1 processes the image as four quarters, stage 2 as a top and a bottom half, stage 3 whole. The
first two are U-shaped encoder-decoders, the third (ORSNet) stays at full resolution. Features pass
from stage to stage through cross-stage feature fusion (CSFF) and a supervised attention module
(SAM), which also returns the stage's restored image.

Layout and numbers are those of the authors' deraining code, github.com/swz30/MPRNet: 3,637,249
parameters. That code calls the network for each patch; here patches are entries of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from basicsr.archs.base import Channels, Count, RestorationNetwork
from basicsr.archs.conv3x3 import Conv3x3
from basicsr.archs.released import Released, strict_load
from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import ARCH_REGISTRY


def to_halves(x: Tensor, dim: int) -> Tensor:
    """Split N images in two along `dim`: 2N halves, all first ones before all second ones."""
    half = x.shape[dim] // 2
    # not chunk, whose parts of a side of any length have no simple form in ONNX
    return torch.cat([x.narrow(dim, 0, half), x.narrow(dim, half, half)])


def from_halves(x: Tensor, dim: int) -> Tensor:
    """Join the halves of `to_halves`."""
    return torch.cat(x.chunk(2), dim)


def conv(in_channels: int, out_channels: int, kernel_size: int, bias: bool) -> nn.Conv2d:
    if kernel_size == 3:
        return Conv3x3(in_channels, out_channels, bias)
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)


class ChannelAttention(nn.Module):
    """Scaling of channels by factors computed from their means."""

    def __init__(self, channels: int, reduction: int, bias: bool) -> None:
        super().__init__()
        squeezed = channels // reduction
        self.conv_du = nn.Sequential(
            nn.Conv2d(channels, squeezed, 1, bias=bias),
            nn.ReLU(inplace=True),
            nn.Conv2d(squeezed, channels, 1, bias=bias),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv_du(x.mean((2, 3), keepdim=True))


@dataclass
class BlockStyle:
    """Settings of all channel attention blocks of a network, and the PReLU that they share."""

    kernel_size: int
    reduction: int
    bias: bool
    act: nn.PReLU = field(default_factory=nn.PReLU)

    def conv(self, in_channels: int, out_channels: int) -> nn.Conv2d:
        return conv(in_channels, out_channels, self.kernel_size, self.bias)

    def blocks(self, channels: int, count: int = 2) -> nn.Sequential:
        return nn.Sequential(*(CAB(channels, self) for _ in range(count)))


class CAB(nn.Module):
    """Channel attention block: x + attention(conv, PReLU, conv)."""

    def __init__(self, channels: int, style: BlockStyle) -> None:
        super().__init__()
        self.CA = ChannelAttention(channels, style.reduction, style.bias)
        self.body = nn.Sequential(
            style.conv(channels, channels), style.act, style.conv(channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.CA(self.body(x))


def resize(scale: float, in_channels: int, out_channels: int) -> nn.Sequential:
    bilinear = nn.Upsample(scale_factor=scale, mode="bilinear", align_corners=False)
    return nn.Sequential(bilinear, conv(in_channels, out_channels, 1, bias=False))


class Down(nn.Module):
    """Bilinear downsampling by 2 and a 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.down = resize(0.5, in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(x)


class Up(nn.Module):
    """Bilinear upsampling by 2 and a 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = resize(2, in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x)


class Encoder(nn.Module):
    """Encoder of three levels with two blocks each.

    With `csff`, features of the previous stage are added at every level.
    """

    def __init__(self, widths: Sequence[int], style: BlockStyle, csff: bool) -> None:
        super().__init__()
        width1, width2, width3 = widths
        self.encoder_level1 = style.blocks(width1)
        self.encoder_level2 = style.blocks(width2)
        self.encoder_level3 = style.blocks(width3)
        self.down12 = Down(width1, width2)
        self.down23 = Down(width2, width3)
        if csff:
            for level, width in enumerate(widths, start=1):
                self.add_module(f"csff_enc{level}", conv(width, width, 1, style.bias))
                self.add_module(f"csff_dec{level}", conv(width, width, 1, style.bias))

    def fuse(self, level: int, x: Tensor, previous: Sequence[Sequence[Tensor]]) -> Tensor:
        """Add the previous stage's encoder and decoder features of that level, if any."""
        for part, features in zip(("enc", "dec"), previous, strict=False):
            x = x + self.get_submodule(f"csff_{part}{level}")(features[level - 1])
        return x

    def forward(self, x: Tensor, previous: Sequence[Sequence[Tensor]] = ()) -> list[Tensor]:
        level1 = self.fuse(1, self.encoder_level1(x), previous)
        level2 = self.fuse(2, self.encoder_level2(self.down12(level1)), previous)
        level3 = self.fuse(3, self.encoder_level3(self.down23(level2)), previous)
        return [level1, level2, level3]


class Decoder(nn.Module):
    """Decoder of three levels with two blocks each, and a block on each skip connection."""

    def __init__(self, widths: Sequence[int], style: BlockStyle) -> None:
        super().__init__()
        width1, width2, width3 = widths
        self.decoder_level1 = style.blocks(width1)
        self.decoder_level2 = style.blocks(width2)
        self.decoder_level3 = style.blocks(width3)
        self.skip_attn1 = CAB(width1, style)
        self.skip_attn2 = CAB(width2, style)
        self.up21 = Up(width2, width1)
        self.up32 = Up(width3, width2)

    def forward(self, encoded: Sequence[Tensor]) -> list[Tensor]:
        level3 = self.decoder_level3(encoded[2])
        level2 = self.decoder_level2(self.up32(level3) + self.skip_attn2(encoded[1]))
        level1 = self.decoder_level1(self.up21(level2) + self.skip_attn1(encoded[0]))
        return [level1, level2, level3]


class SAM(nn.Module):
    """Supervised attention module.

    It restores an image from the stage's features, and weights the features by attention maps
    computed from that image.
    """

    def __init__(self, channels: int, image_channels: int, bias: bool) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels, 1, bias)
        self.conv2 = conv(channels, image_channels, 1, bias)
        self.conv3 = conv(image_channels, channels, 1, bias)

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        restored = self.conv2(x) + image
        return self.conv1(x) * torch.sigmoid(self.conv3(restored)) + x, restored


class ORB(nn.Module):
    """Original resolution block: a residual chain of channel attention blocks."""

    def __init__(self, channels: int, num_cab: int, style: BlockStyle) -> None:
        super().__init__()
        last = conv(channels, channels, style.kernel_size, bias=False)
        self.body = nn.Sequential(*style.blocks(channels, num_cab), last)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class ORSNet(nn.Module):
    """Original resolution subnetwork; each of its blocks receives one level of stage 2."""

    def __init__(
        self, widths: Sequence[int], channels: int, num_cab: int, style: BlockStyle
    ) -> None:
        super().__init__()
        width1, width2, width3 = widths
        for block in (1, 2, 3):
            self.add_module(f"orb{block}", ORB(channels, num_cab, style))
            for part in ("enc", "dec"):
                self.add_module(f"conv_{part}{block}", conv(width1, channels, 1, style.bias))
        for part in ("enc", "dec"):
            self.add_module(f"up_{part}1", Up(width2, width1))
            self.add_module(f"up_{part}2", nn.Sequential(Up(width3, width2), Up(width2, width1)))

    def fuse(self, level: int, part: str, features: Sequence[Tensor]) -> Tensor:
        """Return one level of stage 2's encoder ("enc") or decoder ("dec"), at full resolution."""
        x = features[level - 1]
        if level > 1:
            x = self.get_submodule(f"up_{part}{level - 1}")(x)
        return self.get_submodule(f"conv_{part}{level}")(x)

    def forward(self, x: Tensor, encoded: Sequence[Tensor], decoded: Sequence[Tensor]) -> Tensor:
        for level in (1, 2, 3):
            x = self.get_submodule(f"orb{level}")(x)
            x = x + self.fuse(level, "enc", encoded) + self.fuse(level, "dec", decoded)
        return x


@ARCH_REGISTRY.register
class MPRNet(RestorationNetwork):
    """MPRNet; the defaults are the published deraining network.

    Height and width are multiples of 8: stage 1 splits the image in two, and halves it twice. The
    authors' deblurring network has `n_feat` 96, `scale_unetfeats` 48 and `scale_orsnetfeats` 32;
    denoising 80, 48 and 32.

    Args:
        in_c: channels of the input images.
        out_c: channels of the restored images; equal to `in_c`, as every stage adds its input.
        n_feat: channels at full resolution.
        scale_unetfeats: channels added at each lower level of stages 1 and 2.
        scale_orsnetfeats: channels added in stage 3.
        num_cab: channel attention blocks of each original resolution block.
        kernel_size: odd side of the convolutions' kernels.
        reduction: factor by which channel attention squeezes the channels.
        bias: whether convolutions have biases.

    Raises:
        OptionsError: The numbers are inconsistent.
    """

    size_multiple = 8
    published_wrapper = "state_dict"

    def __init__(
        self,
        in_c: Channels = 3,
        out_c: Channels = 3,
        n_feat: Channels = 40,
        scale_unetfeats: Annotated[int, Field(ge=0, le=4096)] = 20,
        scale_orsnetfeats: Annotated[int, Field(ge=0, le=4096)] = 16,
        num_cab: Count = 8,
        kernel_size: Annotated[int, Field(ge=1, le=31)] = 3,
        reduction: Count = 4,
        bias: bool = False,
    ) -> None:
        super().__init__(in_c, out_c)
        if in_c != out_c:
            raise OptionsError(
                f"MPRNet: in_c is {in_c} and out_c {out_c}; make them equal, every stage adds "
                "its input to its output"
            )
        if kernel_size % 2 == 0:
            raise OptionsError(f"MPRNet: kernel_size is {kernel_size}; make it odd")
        if reduction > n_feat:
            raise OptionsError(
                f"MPRNet: reduction is {reduction}; make it at most n_feat, which is {n_feat}"
            )
        style = BlockStyle(kernel_size, reduction, bias)
        widths = [n_feat + level * scale_unetfeats for level in range(3)]
        channels = n_feat + scale_orsnetfeats

        def shallow_features() -> nn.Sequential:
            return nn.Sequential(style.conv(in_c, n_feat), CAB(n_feat, style))

        self.shallow_feat1 = shallow_features()
        self.shallow_feat2 = shallow_features()
        self.shallow_feat3 = shallow_features()
        self.stage1_encoder = Encoder(widths, style, csff=False)
        self.stage1_decoder = Decoder(widths, style)
        self.stage2_encoder = Encoder(widths, style, csff=True)
        self.stage2_decoder = Decoder(widths, style)
        self.stage3_orsnet = ORSNet(widths, channels, num_cab, style)
        self.sam12 = SAM(n_feat, out_c, bias)
        self.sam23 = SAM(n_feat, out_c, bias)
        self.concat12 = style.conv(n_feat * 2, n_feat)
        self.concat23 = style.conv(n_feat * 2, channels)
        self.tail = style.conv(channels, out_c)

    def stage1(self, halves: Tensor) -> tuple[list[list[Tensor]], Tensor, Tensor]:
        """Return encoder and decoder features of the halves, and SAM's features and images."""
        quarters = self.shallow_feat1(to_halves(halves, 3))
        encoded = [from_halves(level, 3) for level in self.stage1_encoder(quarters)]
        decoded = self.stage1_decoder(encoded)
        return [encoded, decoded], *self.sam12(decoded[0], halves)

    def stage2(
        self, x: Tensor, halves: Tensor, previous: list[list[Tensor]], attended: Tensor
    ) -> tuple[list[list[Tensor]], Tensor, Tensor]:
        """Return the same for whole images, from their halves and the results of stage 1."""
        fused = self.concat12(torch.cat([self.shallow_feat2(halves), attended], 1))
        encoded = [from_halves(level, 2) for level in self.stage2_encoder(fused, previous)]
        decoded = self.stage2_decoder(encoded)
        return [encoded, decoded], *self.sam23(decoded[0], x)

    def stage3(self, x: Tensor, previous: list[list[Tensor]], attended: Tensor) -> Tensor:
        fused = self.concat23(torch.cat([self.shallow_feat3(x), attended], 1))
        return self.tail(self.stage3_orsnet(fused, *previous)) + x

    def forward(self, x: Tensor, all_stages: bool = False) -> Tensor | list[Tensor]:
        """Return the restored images; with `all_stages`, those of stages 1, 2 and 3."""
        self.check_input(x)
        halves = to_halves(x, 2)
        features, attended, image1 = self.stage1(halves)
        features, attended, image2 = self.stage2(x, halves, features, attended)
        image3 = self.stage3(x, features, attended)
        return [from_halves(image1, 2), image2, image3] if all_stages else image3

    @classmethod
    def from_released(cls, state_dict: Mapping[str, Tensor]) -> MPRNet:
        """Build the network from the authors' weights, whose layout is that of this class."""
        released = Released("MPRNet", state_dict)
        n_feat, in_c, kernel_size, _ = released.shape("shallow_feat1.0.weight")
        width2 = released.shape("stage1_encoder.down12.down.1.weight")[0]
        out_c, channels, _, _ = released.shape("tail.weight")
        squeezed = {
            channels: released.shape(f"{block}.CA.conv_du.0.weight")[0]
            for channels, block in (
                (n_feat, "shallow_feat1.1"),
                (width2, "stage1_encoder.encoder_level2.0"),
                (channels, "stage3_orsnet.orb1.body.0"),
            )
        }
        reductions = [
            reduction
            for reduction in range(1, n_feat + 1)
            if all(width // reduction == narrow for width, narrow in squeezed.items())
        ]
        if not reductions:
            raise released.error(f"no single reduction leads from widths to channels {squeezed}")
        net = cls(
            in_c=in_c,
            out_c=out_c,
            n_feat=n_feat,
            scale_unetfeats=width2 - n_feat,
            scale_orsnetfeats=channels - n_feat,
            num_cab=released.length("stage3_orsnet.orb1.body") - 1,
            kernel_size=kernel_size,
            reduction=reductions[0],
            bias="shallow_feat1.0.bias" in state_dict,
        )
        strict_load(net, state_dict)
        return net
