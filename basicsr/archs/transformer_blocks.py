"""Blocks of Restormer (Zamir et al., CVPR 2022), which DTPNet uses too.

All map N x C x H x W to the same shape, except for `Downsample`, `Upsample` and `merge`. They are
fastest in `torch.channels_last`. Submodules have the names of the published weights.

Hot paths use `permute` instead of einops: of channels-last tensors it gives contiguous views, and
torch.compile traces it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from basicsr.archs import ops
from basicsr.archs.conv3x3 import Conv3x3
from basicsr.archs.strips import StripMap, row_local, strip_sums
from basicsr.utils.errors import OptionsError

NormType = Literal["WithBias", "BiasFree"]
FeedForwardType = Literal["gated_dconv", "attention_gated"]


class BiasFreeNorm(nn.Module):
    """Weights of x / sqrt(var(x) + eps) * weight; x itself is not centred."""

    bias = None

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of every pixel, in the weights' precision."""

    def __init__(self, dim: int, norm: NormType = "WithBias") -> None:
        super().__init__()
        self.body = nn.LayerNorm(dim) if norm == "WithBias" else BiasFreeNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return ops.channel_norm(x, self.body.weight, self.body.bias)


class MDTA(nn.Module):
    """Multi-Dconv head transposed attention: channels attend to channels, not pixels to pixels.

    The attention is the same for all pixels. It is therefore multiplied into the output projection
    once, instead of being applied to the values of every pixel first.
    """

    def __init__(self, dim: int, heads: int, bias: bool = False) -> None:
        super().__init__()
        if dim % heads:
            raise OptionsError(f"heads: {dim} channels cannot be divided among {heads} heads")
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * dim, 3 * dim, 3, padding=1, groups=3 * dim, bias=bias)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if not ops.uses_c(x):
            q, k = self.queries_and_keys(x)
            return self.project(x, self.projection(ops.gram_sums(q, k, self.heads)))
        q, k, values = ops.projections(x, self.qkv, self.qkv_dwconv, 0, 3, 3)
        return self.project_values(values, self.projection(ops.gram_sums(q, k, self.heads)))

    def queries_and_keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k = ops.projections(x, self.qkv, self.qkv_dwconv, 0, 2, 3)
        return q, k

    def parameters_of(self, first: int, last: int) -> tuple[Parameters, Parameters]:
        """Return those of `qkv` and `qkv_dwconv` for some of the parts q, k and v."""
        channels = slice(first * self.qkv.in_channels, last * self.qkv.in_channels)
        return _parameters(self.qkv, channels), _parameters(self.qkv_dwconv, channels)

    def projection(self, gram: ops.Gram) -> Tensor:
        """Return the matrix from values to outputs, N x C x C, in float32."""
        with ops.autocast_off(gram.products.device.type):
            out = self.project_out.weight.to(gram.products.dtype)
            out = out.view(-1, self.heads, gram.products.shape[-1])
            # one product for each head, of all images: many small ones are slow
            attention = self.attention(gram).permute(1, 2, 0, 3)
            products = out.transpose(0, 1) @ attention.flatten(2)
            return products.unflatten(2, attention.shape[2:]).permute(2, 1, 0, 3).flatten(2)

    def attention(self, gram: ops.Gram) -> Tensor:
        """Return softmax(cosine similarity * temperature), N x heads x C/heads x C/heads."""
        return (ops.cosine_similarity(gram) * self.temperature).softmax(dim=-1)

    def project(self, x: Tensor, projection: Tensor) -> Tensor:
        """Return the output for `x`, given a `projection` from these or more pixels."""
        (values,) = ops.projections(x, self.qkv, self.qkv_dwconv, 2, 3, 3)
        return self.project_values(values, projection)

    def project_values(self, values: Tensor, projection: Tensor) -> Tensor:
        """Return the output for `values`, given a `projection`."""
        pixels = values.permute(0, 2, 3, 1).flatten(1, 2)
        out = (pixels @ projection.to(pixels.dtype).transpose(1, 2)).unflatten(1, values.shape[2:])
        if self.project_out.bias is not None:
            out = out + self.project_out.bias.to(out.dtype)
        return out.permute(0, 3, 1, 2)


class GDFN(nn.Module):
    """Gated-Dconv feed-forward network: one half of the hidden channels gates the other."""

    def __init__(self, dim: int, ffn_expansion_factor: float, bias: bool = False) -> None:
        super().__init__()
        hidden = int(dim * ffn_expansion_factor)
        if hidden < 1:
            raise OptionsError(
                f"ffn_expansion_factor: {ffn_expansion_factor} times {dim} channels leaves no "
                "hidden channel; raise it"
            )
        self.project_in = nn.Conv2d(dim, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        hidden = ops.gated_projection(x, self.project_in, self.dwconv)
        return ops.hidden_projection(hidden, self.project_out)


class AttentionGatedFeedForward(GDFN):
    """GDFN with channel and then spatial attention in front of the gate: DTPNet's figure (C).

    The paper shows the two without details. These are CBAM's (Woo et al., ECCV 2018), with an
    average-pooled squeeze to a quarter and a 7x7 convolution of the channels' mean and maximum.
    """

    def __init__(self, dim: int, ffn_expansion_factor: float, bias: bool = False) -> None:
        super().__init__(dim, ffn_expansion_factor, bias)
        hidden = int(dim * ffn_expansion_factor)
        self.channel_attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(hidden, max(1, hidden // 4), 1),
            nn.ReLU(),
            nn.Conv2d(max(1, hidden // 4), hidden, 1),
            nn.Sigmoid(),
        )
        self.spatial_attention = nn.Sequential(nn.Conv2d(2, 1, 7, padding=3), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        gate = gate * self.channel_attention(gate)
        profile = torch.cat([gate.mean(1, keepdim=True), gate.amax(1, keepdim=True)], dim=1)
        gate = gate * self.spatial_attention(profile)
        return self.project_out(F.gelu(gate) * value)


FEED_FORWARDS: Mapping[FeedForwardType, type[GDFN]] = {
    "gated_dconv": GDFN,
    "attention_gated": AttentionGatedFeedForward,
}


class TransformerBlock(nn.Module):
    """x + MDTA(norm(x)), then x + feed-forward(norm(x)). A `StripMap` is read twice."""

    def __init__(
        self,
        dim: int,
        heads: int,
        ffn_expansion_factor: float,
        bias: bool = False,
        norm: NormType = "WithBias",
        feed_forward: FeedForwardType = "gated_dconv",
    ) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(dim, norm)
        self.attn = MDTA(dim, heads, bias)
        self.norm2 = ChannelNorm(dim, norm)
        self.ffn = FEED_FORWARDS[feed_forward](dim, ffn_expansion_factor, bias)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, StripMap):
            return self._with_projection(self._projection_of_strips(x), x)
        if ops.uses_c_passes(x):
            return self._with_projection(
                self.attn.projection(self._gram(x, slice(0, x.shape[2]))), x
            )
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))

    def _projection_of_strips(self, x: StripMap) -> Tensor:
        """Return the attention's projection, from the Gram matrices of all strips of `x`."""
        return self.attn.projection(ops.sum_grams(strip_sums(self._gram, x, halo=1)))

    def _gram(self, x: Tensor, rows: slice) -> ops.Gram:
        """Return the sums over some rows of `x`, which has the rows around them too."""
        if ops.uses_c_passes(x):
            from basicsr.archs.ops import transformer_block_c

            parameters = _parameters(self.norm1.body), *self.attn.parameters_of(0, 2)
            return transformer_block_c.gram_sums(x, *parameters, self.attn.heads, rows)
        q, k = self.attn.queries_and_keys(self.norm1(x))
        return ops.gram_sums(q[:, :, rows], k[:, :, rows], self.attn.heads)

    @row_local(halo=2)
    def _with_projection(self, projection: Tensor, x: Tensor) -> Tensor:
        if not ops.uses_c_passes(x):
            x = x + self.attn.project(self.norm1(x), projection)
            return x + self.ffn(self.norm2(x))
        from basicsr.archs.ops.transformer_block_c import add_gates, add_values

        last = projection, self.attn.project_out.bias
        x = add_values(x, _parameters(self.norm1.body), *self.attn.parameters_of(2, 3), last)
        if type(self.ffn) is not GDFN:
            return x + self.ffn(self.norm2(x))
        convolutions = (self.ffn.project_in, self.ffn.dwconv, self.ffn.project_out)
        return add_gates(x, _parameters(self.norm2.body), *map(_parameters, convolutions))


Parameters = tuple[Tensor, Tensor | None]


def _parameters(
    module: nn.Conv2d | nn.LayerNorm | BiasFreeNorm, channels: slice = slice(None)
) -> Parameters:
    """Return weight and bias of some output channels."""
    bias = module.bias
    return module.weight[channels], None if bias is None else bias[channels]


Checkpointing = Literal["none", "selective", "blocks"]

_PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default)


def _keep_products(_: Any, operation: Any, *args: Any, **__: Any) -> CheckpointPolicy:
    """Save the results of matrix products, 1x1 convolutions included."""
    pointwise = operation is torch.ops.aten.convolution.default and args[1].shape[2:] == (1, 1)
    if pointwise or operation in _PRODUCTS:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


_KEEPING_PRODUCTS: dict[str, Any] = {
    "context_fn": lambda: create_selective_checkpoint_contexts(_keep_products)
}
if "respect_saved_tensors_hooks" in inspect.signature(checkpoint).parameters:
    _KEEPING_PRODUCTS["respect_saved_tensors_hooks"] = True  # cost.py counts saved tensors by hooks


class Blocks(nn.Sequential):
    """Consecutive blocks, with a choice of the activations that training saves.

    Args:
        blocks: modules that keep the shape of their input.
        checkpointing: "none" saves all activations that gradients need. "blocks" saves only the
            input of each block and recomputes the rest. "selective" also saves the results of
            matrix products, so that only norms, depthwise convolutions and gates are recomputed:
            half of all activations, at little cost.
    """

    def __init__(self, *blocks: nn.Module, checkpointing: Checkpointing = "none") -> None:
        super().__init__(*blocks)
        self.checkpointing = checkpointing

    def forward(self, x: Tensor) -> Tensor:
        for block in self:
            if self.checkpointing == "none" or not self.training:
                x = block(x)
            elif self.checkpointing == "blocks":
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = checkpoint(block, x, use_reentrant=False, **_KEEPING_PRODUCTS)
        return x


class Downsample(nn.Module):
    """N x C x H x W to N x 2C x H/2 x W/2."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim % 2:
            raise OptionsError(f"dim: {dim} channels cannot be halved; an even number is needed")
        self.body = nn.Sequential(Conv3x3(dim, dim // 2, bias=False), nn.PixelUnshuffle(2))

    @row_local(halo=2)
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Upsample(nn.Module):
    """N x C x H x W to N x C/2 x 2H x 2W."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(Conv3x3(dim, dim * 2, bias=False), nn.PixelShuffle(2))

    @row_local(halo=1)
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


@row_local(halo=1)
def merge(up: nn.Module, x: Tensor, skip: Tensor, reduce: nn.Module | None = None) -> Tensor:
    """Concatenate upsampled features with those of the skip connection, and `reduce` the channels.

    It is one operation, so that in strips the concatenated features are never stored as a whole.
    """
    x = torch.cat([up(x), skip], dim=1)
    return x if reduce is None else reduce(x)
