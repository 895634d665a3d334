"""The blocks against their formulas; memory format and checkpointing do not change results."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from basicsr.archs.transformer_blocks import (
    GDFN,
    MDTA,
    AttentionGatedFeedForward,
    Blocks,
    ChannelNorm,
    Downsample,
    TransformerBlock,
    Upsample,
)
from basicsr.utils.errors import OptionsError


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 8, 6, 10)


def test_norm_with_bias_is_layer_norm_over_channels(x):
    norm = ChannelNorm(8, "WithBias")
    torch.nn.init.normal_(norm.body.weight)
    torch.nn.init.normal_(norm.body.bias)
    pixel = x[1, :, 3, 4]
    scaled = (pixel - pixel.mean()) / (pixel.var(unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(norm(x)[1, :, 3, 4], scaled * norm.body.weight + norm.body.bias)


def test_bias_free_norm_scales_but_does_not_centre(x):
    norm = ChannelNorm(8, "BiasFree")
    torch.nn.init.normal_(norm.body.weight)
    pixel = x[0, :, 5, 9] + 3
    expected = pixel / (pixel.var(unbiased=False) + 1e-5).sqrt() * norm.body.weight
    torch.testing.assert_close(norm(x + 3)[0, :, 5, 9], expected)
    assert [name for name, _ in norm.named_parameters()] == ["body.weight"]


def test_attention_is_the_formula_head_by_head(x):
    attention = MDTA(8, heads=2)
    attention.temperature.data = torch.tensor([0.5, 3.0]).view(2, 1, 1)
    q, k, v = attention.qkv_dwconv(attention.qkv(x)).flatten(2).chunk(3, dim=1)
    heads = []
    for head, temperature in enumerate((0.5, 3.0)):
        own = slice(4 * head, 4 * head + 4)
        cosine = F.cosine_similarity(q[:, own, None], k[:, None, own], dim=-1)
        heads.append((cosine * temperature).softmax(dim=-1) @ v[:, own])
    expected = attention.project_out(torch.cat(heads, dim=1).view_as(x))
    torch.testing.assert_close(attention(x), expected)


def test_heads_have_to_divide_the_channels():
    with pytest.raises(OptionsError, match="heads: 8 channels cannot be divided among 3 heads"):
        MDTA(8, heads=3)


def test_odd_widths_cannot_be_halved():
    with pytest.raises(OptionsError, match="dim: 9 channels"):
        Downsample(9)


def test_feed_forward_gates_one_half_by_the_other(x):
    feed_forward = GDFN(8, 2.66)
    hidden = feed_forward.dwconv(feed_forward.project_in(x))
    assert hidden.shape[1] == 2 * 21
    expected = feed_forward.project_out(F.gelu(hidden[:, :21]) * hidden[:, 21:])
    torch.testing.assert_close(feed_forward(x), expected)


def test_attention_gated_feed_forward_weighs_the_gate(x):
    feed_forward = AttentionGatedFeedForward(8, 2.0)
    plain = GDFN(8, 2.0)
    plain.load_state_dict(feed_forward.state_dict(), strict=False)
    assert not torch.allclose(feed_forward(x), plain(x))
    # Attention that is one everywhere leaves the plain feed-forward part.
    for conv in (feed_forward.channel_attention[3], feed_forward.spatial_attention[0]):
        torch.nn.init.zeros_(conv.weight)
        torch.nn.init.constant_(conv.bias, 50.0)
    torch.testing.assert_close(feed_forward(x), plain(x))


def test_resampling_shapes(x):
    assert Downsample(8)(x).shape == (2, 16, 3, 5)
    assert Upsample(8)(x).shape == (2, 4, 12, 20)


@pytest.mark.parametrize("norm", ["WithBias", "BiasFree"])
def test_memory_format_does_not_change_the_result(x, norm):
    block = TransformerBlock(8, 2, 2.66, bias=True, norm=norm)
    expected = block(x)
    block.to(memory_format=torch.channels_last)
    result = block(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(result, expected)
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_autocast_keeps_norms_and_attention_precise(x):
    block = TransformerBlock(8, 2, 2.66)
    seen = {}
    block.attn.attention = lambda gram: seen.setdefault("map", MDTA.attention(block.attn, gram))
    with torch.autocast("cpu", torch.bfloat16):
        rough = block(x)
    assert seen["map"].dtype == torch.float32
    torch.testing.assert_close(seen["map"].sum(-1), torch.ones(2, 2, 4))
    torch.testing.assert_close(rough.float(), block(x), rtol=0.05, atol=0.05)


def test_costs_can_be_counted_without_computing():
    with torch.device("meta"):
        assert TransformerBlock(8, 2, 2.66)(torch.empty(1, 8, 64, 64)).shape == (1, 8, 64, 64)


@pytest.mark.parametrize("checkpointing", ["selective", "blocks"])
def test_checkpointing_recomputes_and_gives_the_same_gradients(x, checkpointing):
    torch.manual_seed(0)
    plain = Blocks(*(TransformerBlock(8, 2, 2.0) for _ in range(2)))
    checkpointed = Blocks(*plain, checkpointing=checkpointing)
    passes = []
    plain[0].register_forward_pre_hook(lambda *_: passes.append(1))

    plain(x).square().sum().backward()
    expected = [parameter.grad.clone() for parameter in plain.parameters()]
    assert len(passes) == 1
    plain.zero_grad()
    checkpointed(x).square().sum().backward()
    assert len(passes) == 3  # once forward, once again for the gradient
    for parameter, gradient in zip(checkpointed.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    checkpointed.eval()(x)
    assert len(passes) == 4


class Convolutions(TorchDispatchMode):
    """Counter of the pointwise and depthwise convolutions that are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.pointwise = self.depthwise = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default:
            pointwise = args[1].shape[2:] == (1, 1)
            self.pointwise += pointwise
            self.depthwise += not pointwise
        return func(*args, **(kwargs or {}))


def test_selective_checkpointing_computes_products_once(x):
    blocks = Blocks(TransformerBlock(8, 2, 2.0), checkpointing="selective")
    with Convolutions() as once, torch.no_grad():
        blocks(x)
    with Convolutions() as counted:
        blocks(x).sum().backward()
    assert counted.pointwise == once.pointwise
    assert counted.depthwise == 2 * once.depthwise
