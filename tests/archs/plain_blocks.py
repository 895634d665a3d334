"""The networks as published code computes them, for comparison of results and speed.

Nothing is fused, each gate is a convolution, tensors have the standard memory format, and norms and
attention work on transposed views. Every class has the parameters (and the state dict's keys) of
the fast class that it derives from.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from basicsr.archs.conv3x3 import Conv3x3
from basicsr.archs.conv_lstm import ConvGRUCell, ConvLSTMCell
from basicsr.archs.dtpnet_arch import DetailDilation, DTPNet
from basicsr.archs.prenet_arch import PReNet
from basicsr.archs.restormer_arch import Restormer
from basicsr.archs.transformer_blocks import GDFN, MDTA, Blocks, ChannelNorm, TransformerBlock


def plain_twin(network: nn.Module) -> nn.Module:
    """Return a copy of `network` in which plain classes replace the fast ones at any depth."""
    twin = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    for module in twin.modules():
        module.__class__ = PLAIN.get(type(module), type(module))
    return twin


class PlainNorm(ChannelNorm):
    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2).transpose(1, 2)
        variance = pixels.var(-1, keepdim=True, unbiased=False)
        if getattr(self.body, "bias", None) is None:
            pixels = pixels / torch.sqrt(variance + 1e-5) * self.body.weight
        else:
            centred = pixels - pixels.mean(-1, keepdim=True)
            pixels = centred / torch.sqrt(variance + 1e-5) * self.body.weight + self.body.bias
        return pixels.transpose(1, 2).unflatten(2, x.shape[2:])


class PlainMDTA(MDTA):
    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q, k, v = (
            part.reshape(n, self.heads, c // self.heads, h * w)
            for part in self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        )
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        attention = (q @ k.transpose(-2, -1) * self.temperature).softmax(dim=-1)
        return self.project_out((attention @ v).reshape(n, c, h, w))


class PlainGDFN(GDFN):
    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * value)


class PlainTransformerBlock(TransformerBlock):
    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class PlainBlocks(Blocks):
    def forward(self, x: Tensor) -> Tensor:
        for block in self:
            x = block(x)
        return x


def _gates(conv: nn.Conv2d, concatenated: Tensor) -> list[Tensor]:
    """Return every gate before its nonlinearity, each from its own convolution."""
    channels = conv.in_channels // 2
    assert conv.bias is not None
    pairs = zip(conv.weight.split(channels), conv.bias.split(channels), strict=True)
    return [F.conv2d(concatenated, weight, bias, padding=1) for weight, bias in pairs]


class PlainLSTMCell(ConvLSTMCell):
    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h, c = (torch.zeros_like(x), torch.zeros_like(x)) if state is None else state
        i, f, o, g = _gates(self.gates, torch.cat([x, h], dim=1))
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, (h, c)


class PlainGRUCell(ConvGRUCell):
    def forward(self, x: Tensor, state: tuple[Tensor] | None) -> tuple[Tensor, tuple[Tensor]]:
        h = torch.zeros_like(x) if state is None else state[0]
        z, b = (torch.sigmoid(gate) for gate in _gates(self.gates, torch.cat([x, h], dim=1)))
        g = torch.tanh(self.candidate(torch.cat([b * h, x], dim=1)))
        h = (1 - z) * h + z * g
        return h, (h,)


class PlainPReNet(PReNet):
    def forward(
        self, rainy: Tensor, all_stages: bool = False, start: Tensor | None = None
    ) -> Tensor | list[Tensor]:
        x = rainy if start is None else start
        state: Any = None
        stages = []
        for _ in range(self.recurrent_iter):
            last = x
            x = F.relu(self.conv_in(torch.cat([rainy, x], dim=1) if self.image_input else x))
            if self.recurrent is not None:
                x, state = self.recurrent(x, state)
            for i in range(5):
                first, _, second, _ = self.blocks[i % len(self.blocks)]
                x = F.relu(F.relu(second(F.relu(first(x)))) + x)
            x = self.conv_out(x)
            if self.image_residual != "none":
                x = x + {"rainy": rainy, "last": last}[self.image_residual]
            stages.append(x)
        return stages if all_stages else x


class PlainDetailDilation(DetailDilation):
    """Embedding of image and band by two convolutions, as in the published code."""

    def forward(self, rainy: Tensor) -> Tensor:
        def resized(x: Tensor, factor: float) -> Tensor:
            return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)

        half = resized(F.relu(self.detail(rainy)), 0.5)
        band = half - resized(resized(half, 0.5), 2)
        return self.embed(rainy) - self.embed(resized(band, 2))


class PlainDTPNet(DTPNet):
    """DTPNet with a stem that is not VGG16."""

    def forward(self, rainy: Tensor, all_stages: bool = False) -> Tensor | list[Tensor]:
        x = self.stem(rainy)
        inputs, outputs = [x], [self.encoder.levels[0](x)]
        for down, level in zip(self.encoder.downs, self.encoder.levels[1:], strict=True):
            inputs.append(down(outputs[-1]))
            outputs.append(level(inputs[-1]))
        x = outputs[3]
        for i in (2, 1, 0):
            x = torch.cat([self.decoder.ups[i](x), outputs[i]], dim=1)
            x = self.decoder.levels[i](self.decoder.reduce[i](x))
            if self.decoder.scale_keep:
                x = x + self.decoder.ups[i](inputs[i + 1])
        stages = [self.to_image(self.refinement(x)) + (rainy if self.image_residual else 0)]
        if self.progressive is not None:
            stages.append(self.progressive(rainy, start=stages[0]))
        return stages if all_stages else stages[-1]


class PlainRestormer(Restormer):
    def forward(self, image: Tensor, all_stages: bool = False) -> Tensor | list[Tensor]:
        embedded = self.patch_embed(image)
        fine = self.encoder_level1(embedded)
        middle = self.encoder_level2(self.down1_2(fine))
        coarse = self.encoder_level3(self.down2_3(middle))
        x = self.up4_3(self.latent(self.down3_4(coarse)))
        x = self.decoder_level3(self.reduce_chan_level3(torch.cat([x, coarse], dim=1)))
        x = torch.cat([self.up3_2(x), middle], dim=1)
        x = self.decoder_level2(self.reduce_chan_level2(x))
        x = self.decoder_level1(torch.cat([self.up2_1(x), fine], dim=1))
        x = self.refinement(x)
        if self.skip_conv is None:
            restored = self.output(x) + image
        else:
            restored = self.output(x + self.skip_conv(embedded))
        return [restored] if all_stages else restored


PLAIN: dict[type[nn.Module], type[nn.Module]] = {
    Conv3x3: nn.Conv2d,
    ChannelNorm: PlainNorm,
    MDTA: PlainMDTA,
    GDFN: PlainGDFN,
    TransformerBlock: PlainTransformerBlock,
    Blocks: PlainBlocks,
    ConvLSTMCell: PlainLSTMCell,
    ConvGRUCell: PlainGRUCell,
    PReNet: PlainPReNet,
    DetailDilation: PlainDetailDilation,
    DTPNet: PlainDTPNet,
    Restormer: PlainRestormer,
}
