"""The operations against their formulas, and their gradients against numerical ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from basicsr.archs import ops
from basicsr.archs.ops.gated_dwconv import gelu_gate
from basicsr.archs.ops.projections import aligned_halves

CASES = [(1, 4, 3, 5), (2, 6, 5, 4)]


def _random(*shape: int, channels_last: bool = True) -> Tensor:
    x = torch.randn(shape, dtype=torch.float64)
    if channels_last and len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    return x.requires_grad_()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("shape", CASES)
@pytest.mark.parametrize("channels_last", [True, False])
def test_gram_sums_are_sums_over_pixels_by_heads(shape, channels_last):
    c = shape[1]
    q, k = (_random(*shape, channels_last=channels_last) for _ in range(2))
    gram = ops.gram_sums(q, k, 2)
    for head in range(2):
        own = slice(head * c // 2, (head + 1) * c // 2)
        products = torch.einsum("nahw,nbhw->nab", q[:, own], k[:, own])
        torch.testing.assert_close(gram.products[:, head], products)
    torch.testing.assert_close(gram.q_squares.flatten(1), q.square().sum((2, 3)))
    torch.testing.assert_close(gram.k_squares.flatten(1), k.square().sum((2, 3)))
    halves = [ops.gram_sums(q[:, :, rows], k[:, :, rows], 2) for rows in (slice(2), slice(2, None))]
    for whole, summed in zip(gram, ops.sum_grams(halves), strict=True):
        torch.testing.assert_close(whole, summed)


def test_first_and_second_derivatives():
    gate, value = _random(1, 3, 2, 3), _random(1, 3, 2, 3)
    for check in (gradcheck, gradgradcheck):
        assert check(gelu_gate, (gate, value))
        assert check(
            lambda q, k: tuple(ops.gram_sums(q, k, 2)), (_random(2, 4, 2, 3), _random(2, 4, 2, 3))
        )
        assert check(lambda x, w: ops.channel_norm(x, w, None), (_random(1, 4, 2, 2), _random(4)))


def test_a_channel_of_zeros_is_similar_to_none_and_has_gradients():
    q = torch.randn(1, 4, 3, 3, dtype=torch.float64)
    q[:, 1] = 0
    q.requires_grad_()
    similar = ops.cosine_similarity(ops.gram_sums(q, q.detach(), 1))
    assert similar[0, 0, 1].tolist() == [0, 0, 0, 0]
    assert similar[0, 0, 0, 0].item() == pytest.approx(1)
    similar.sum().backward()
    assert q.grad.isfinite().all()


@pytest.mark.parametrize("bias", [False, True])
def test_gated_projection_and_gated_dwconv_are_one_formula(bias):
    point, depth = nn.Conv2d(4, 10, 1, bias=bias), nn.Conv2d(10, 10, 3, 1, 1, groups=10, bias=bias)
    point, depth, x = point.double(), depth.double(), _random(2, 4, 5, 3)
    gate, value = depth(point(x)).chunk(2, dim=1)
    expected = F.gelu(gate) * value
    torch.testing.assert_close(ops.gated_projection(x, point, depth), expected)
    hidden = ops.pointwise(x, point.weight, point.bias)
    torch.testing.assert_close(ops.gated_dwconv(hidden, depth.weight, depth.bias), expected)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("hidden", [5, 8])
def test_channels_of_zeros_change_nothing(hidden, bias):
    point, out = nn.Conv2d(4, 2 * hidden, 1, bias=bias), nn.Conv2d(hidden, 4, 1, bias=bias)
    depth = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
    x = torch.randn(2, 4, 6, 5)
    widened = ops.pointwise(x, *aligned_halves(point))
    widened = ops.gated_dwconv(widened, *aligned_halves(depth))
    assert widened.shape[1] == 8
    gate, value = depth(point(x)).chunk(2, dim=1)
    expected = out(F.gelu(gate) * value)
    torch.testing.assert_close(ops.hidden_projection(widened, out), expected)


def test_statistics_of_bf16_are_float32():
    q = (torch.randn(1, 8, 64, 64) + 3).bfloat16()
    gram = ops.gram_sums(q, q, 1)
    assert gram.products.dtype == torch.float32
    torch.testing.assert_close(gram.q_squares[:, 0], q.double().square().sum((2, 3)).float())
    normed = ops.channel_norm(q, torch.ones(8), torch.zeros(8))
    assert normed.dtype == torch.bfloat16
    expected = F.layer_norm(q.double().permute(0, 2, 3, 1), (8,)).permute(0, 3, 1, 2)
    torch.testing.assert_close(normed, expected.bfloat16(), rtol=0.01, atol=0.01)


def test_split_channels_are_contiguous():
    x = torch.randn(2, 6, 3, 3).contiguous(memory_format=torch.channels_last)
    for part, expected in zip(ops.split_channels(x, 3), x.chunk(3, dim=1), strict=True):
        assert torch.equal(part, expected)
        assert part.is_contiguous(memory_format=torch.channels_last)
