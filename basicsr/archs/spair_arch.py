"""SPAIR, a reconstruction: spatially-adaptive image restoration (Purohit et al., ICCV 2021).

Neither code nor weights were released. This network is built from a description of the parts only:
its widths, depths and connections are this project's own, and its scores are not those of SPAIR.
From the description are:

- a localization network predicts the distortion mask M, supervised by |degraded - clean| above a
  threshold;
- a restoration network, whose features are fused with those of the localization network and M;
- SFM, spatial feature modulation: features inside the mask get the mean and variance of those
  outside;
- SC, a sparse convolution guided by the mask;
- a sparse non-local attention guided by the mask.

M is 1 where the image is degraded, and soft: in (0, 1).
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from basicsr.archs.base import Channels, Count, RestorationNetwork
from basicsr.archs.conv3x3 import Conv3x3
from basicsr.archs.ops import conv3x3
from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import ARCH_REGISTRY

# Weight of every pixel for either side of the mask, so that an empty side has statistics too.
EPSILON = 1e-5


def masked_statistics(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation over space, N x C x 1 x 1, weighted by N x 1 x H x W."""
    weight = (weight + EPSILON) / (weight + EPSILON).sum((2, 3), keepdim=True)
    mean = (x * weight).sum((2, 3), keepdim=True)
    variance = ((x - mean).square() * weight).sum((2, 3), keepdim=True)
    return mean, (variance + 1e-5).sqrt()


def modulate(x: Tensor, mask: Tensor) -> Tensor:
    """SFM: give `x` inside the mask the mean and standard deviation of `x` outside."""
    x = x.float()
    mean_in, deviation_in = masked_statistics(x, mask)
    mean_out, deviation_out = masked_statistics(x, 1 - mask)
    moved = (x - mean_in) / deviation_in * deviation_out + mean_out
    return x + mask * (moved - x)


class SparseConv(nn.Module):
    """SC: 3x3 convolution that reads and writes degraded pixels only.

    Each window's sum is divided by the share of the window inside the mask, as in partial
    convolution, so that the result does not fade towards the border of the mask.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.kaiming_normal_(self.weight)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        covered = F.avg_pool2d(mask, 3, stride=1, padding=1)
        summed = conv3x3(x * mask, self.weight, None)
        return mask * (summed / covered.clamp(min=1 / 9) + self.bias.view(1, -1, 1, 1))


def average_cells(x: Tensor, cells: tuple[int, int]) -> Tensor:
    """Return the averages of `x` over `cells` rows and columns of cells, N x C x rows x columns."""
    if not torch.compiler.is_exporting():
        return F.adaptive_avg_pool2d(x, cells)
    # the same as two matrix products, which ONNX has for images of any size
    for axis, count in ((2, cells[0]), (2, cells[1])):  # the first product moves its axis last
        side = x.shape[axis]
        number = torch.arange(count, device=x.device)[:, None]
        start, stop = number * side // count, ((number + 1) * side + count - 1) // count
        pixel = torch.arange(side, device=x.device)
        inside = ((pixel >= start) & (pixel < stop)).to(x.dtype)
        x = x.movedim(axis, -1) @ (inside / (stop - start)).to(x.dtype).mT
    return x


class SparseAttention(nn.Module):
    """Attention of degraded pixels to the clean features of the whole image.

    Keys and values are averages over the clean pixels of at most `grid` x `grid` cells, so that
    memory is linear in the number of pixels. Cells with a smaller clean share get less attention.
    Queries and keys are normalised and scaled by a learned temperature, which keeps large features
    from dominating.
    """

    def __init__(self, channels: int, heads: int, grid: int) -> None:
        super().__init__()
        self.heads = heads
        self.grid = grid
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.query = nn.Conv2d(channels, channels, 1)
        self.key_value = nn.Conv2d(channels, 2 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)

    def references(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return clean averages, N x C x cells, and clean shares of the cells, N x 1 x cells."""
        cells = min(self.grid, x.shape[2]), min(self.grid, x.shape[3])
        clean = (1 - mask).clamp(min=EPSILON)
        share = average_cells(clean, cells)
        return (average_cells(x * clean, cells) / share).flatten(2), share.flatten(2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        averages, share = self.references(x, mask)

        def per_head(tokens: Tensor) -> Tensor:
            return rearrange(tokens, "n (heads c) pixels -> n heads pixels c", heads=self.heads)

        key, value = self.key_value(averages[..., None])[..., 0].chunk(2, 1)
        query = F.normalize(per_head(self.query(x).flatten(2)), dim=3) * self.temperature
        key, value = F.normalize(per_head(key), dim=3), per_head(value)
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=share.log()[:, None].to(query.dtype), scale=1.0
        )
        attended = rearrange(attended, "n heads (h w) c -> n (heads c) h w", h=x.shape[2])
        return x + mask * self.project(attended)


class AdaptiveBlock(nn.Module):
    """x + SC(ReLU(conv(SFM(x)))), which leaves clean pixels unchanged."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv3x3(channels, channels)
        self.sparse_conv = SparseConv(channels)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x + self.sparse_conv(F.relu(self.conv(modulate(x, mask))), mask)


class AdaptiveLevel(nn.Module):
    """Adaptive blocks at one resolution."""

    def __init__(self, channels: int, num_blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(AdaptiveBlock(channels) for _ in range(num_blocks))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, mask)
        return x


def down(channels: int) -> nn.Module:
    return nn.Conv2d(channels, 2 * channels, 2, stride=2)


def up(channels: int) -> nn.Module:
    return nn.ConvTranspose2d(2 * channels, channels, 2, stride=2)


def relu_conv(in_channels: int, channels: int) -> nn.Sequential:
    conv = Conv3x3(in_channels, channels)
    nn.init.kaiming_normal_(conv.weight)
    return nn.Sequential(conv, nn.ReLU(inplace=True))


def convs(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(relu_conv(in_channels, channels), relu_conv(channels, channels))


class LocalizationNet(nn.Module):
    """Three-level U-net that returns the mask and the features of each level."""

    def __init__(self, dim: int, in_channels: int) -> None:
        super().__init__()
        self.encoder1 = convs(in_channels, dim)
        self.down1 = down(dim)
        self.encoder2 = convs(2 * dim, 2 * dim)
        self.down2 = down(2 * dim)
        self.bottom = convs(4 * dim, 4 * dim)
        self.up2 = up(2 * dim)
        self.decoder2 = convs(4 * dim, 2 * dim)
        self.up1 = up(dim)
        self.decoder1 = convs(2 * dim, dim)
        self.to_mask = Conv3x3(dim, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        level1 = self.encoder1(x)
        level2 = self.encoder2(self.down1(level1))
        level3 = self.bottom(self.down2(level2))
        level2 = self.decoder2(torch.cat([self.up2(level3), level2], 1))
        level1 = self.decoder1(torch.cat([self.up1(level2), level1], 1))
        return self.to_mask(level1).float().sigmoid(), [level1, level2, level3]


class RestorationNet(nn.Module):
    """Three-level U-net of adaptive blocks, with sparse attention at the lowest resolution."""

    def __init__(
        self,
        dim: int,
        localization_dim: int,
        num_blocks: tuple[int, ...],
        heads: int,
        grid: int,
        in_channels: int,
        out_channels: int,
    ) -> None:
        super().__init__()

        def fusion(level: int) -> nn.Module:
            own, located = dim * 2**level, localization_dim * 2**level
            return nn.Conv2d(own + located + 1, own, 1)

        self.embed = Conv3x3(in_channels, dim)
        self.fusions = nn.ModuleList(fusion(level) for level in range(3))
        self.encoder1 = AdaptiveLevel(dim, num_blocks[0])
        self.down1 = down(dim)
        self.encoder2 = AdaptiveLevel(2 * dim, num_blocks[1])
        self.down2 = down(2 * dim)
        self.bottom = AdaptiveLevel(4 * dim, num_blocks[2])
        self.attention = SparseAttention(4 * dim, heads, grid)
        self.up2 = up(2 * dim)
        self.merge2 = nn.Conv2d(4 * dim, 2 * dim, 1)
        self.decoder2 = AdaptiveLevel(2 * dim, num_blocks[1])
        self.up1 = up(dim)
        self.merge1 = nn.Conv2d(2 * dim, dim, 1)
        self.decoder1 = AdaptiveLevel(dim, num_blocks[0])
        self.to_image = Conv3x3(dim, out_channels)

    def forward(self, x: Tensor, mask: Tensor, located: list[Tensor]) -> Tensor:
        masks = [mask, F.avg_pool2d(mask, 2), F.avg_pool2d(mask, 4)]

        def fuse(level: int, features: Tensor) -> Tensor:
            return self.fusions[level](torch.cat([features, located[level], masks[level]], 1))

        level1 = self.encoder1(fuse(0, self.embed(x)), masks[0])
        level2 = self.encoder2(fuse(1, self.down1(level1)), masks[1])
        level3 = self.bottom(fuse(2, self.down2(level2)), masks[2])
        level3 = self.attention(level3, masks[2])
        level2 = self.merge2(torch.cat([self.up2(level3), level2], 1))
        level2 = self.decoder2(level2, masks[1])
        level1 = self.merge1(torch.cat([self.up1(level2), level1], 1))
        return self.to_image(self.decoder1(level1, masks[0]))


@ARCH_REGISTRY.register
class SPAIR(RestorationNetwork):
    """SPAIR, a reconstruction; see the module's docstring.

    With twice as many input as output channels (a left and a right view), the output is added to
    the mean of the two views.

    Args:
        dim: channels of the restoration network at full resolution, doubled at each lower level.
        localization_dim: the same for the localization network.
        num_blocks: adaptive blocks at full, half and quarter resolution.
        heads: attention heads; they divide 4 * dim.
        grid: the attention's references are at most grid x grid.
        in_channels: channels of the input images.
        out_channels: channels of the restored images.
    """

    size_multiple = 4
    reconstruction: ClassVar[bool] = True

    def __init__(
        self,
        dim: Channels = 48,
        localization_dim: Channels = 24,
        num_blocks: tuple[Count, Count, Count] = (2, 3, 4),
        heads: Count = 4,
        grid: Count = 16,
        in_channels: Channels = 3,
        out_channels: Channels = 3,
    ) -> None:
        super().__init__(in_channels, out_channels)
        self.require_base_image()
        if (4 * dim) % heads:
            raise OptionsError(
                f"SPAIR: heads is {heads}, which does not divide 4 * dim = {4 * dim}"
            )
        self.localization = LocalizationNet(localization_dim, in_channels)
        self.restoration = RestorationNet(
            dim, localization_dim, num_blocks, heads, grid, in_channels, out_channels
        )

    def localize(self, x: Tensor) -> Tensor:
        """Return the mask, N x 1 x H x W in [0, 1]: 1 is degraded."""
        return self.localization(x)[0]

    def forward(self, x: Tensor, all_stages: bool = False) -> Tensor | list[Tensor]:
        """Return the restored images; with `all_stages`, [masked, restored].

        `masked` is N x (out_channels + 1) x H x W: the degraded images with the mask as their alpha
        channel, from which MaskLoss is computed.
        """
        self.check_input(x)
        mask, located = self.localization(x)
        base = self.base_image(x)
        restored = base + self.restoration(x, mask, located)
        return [torch.cat([base, mask], 1), restored] if all_stages else restored
