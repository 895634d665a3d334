"""The C versions for every vector width, in float32 and bfloat16, against float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from basicsr.archs.ops import (
    c_compiler,
    channel_norm_c,
    conv3x3_c,
    dwconv_c,
    gated_dwconv_c,
    gram_c,
    lstm_c,
)
from basicsr.archs.ops.channel_norm import channel_norm
from basicsr.archs.ops.conv3x3 import conv3x3
from basicsr.archs.ops.dwconv import split_dwconv
from basicsr.archs.ops.gated_dwconv import gated_dwconv
from basicsr.archs.ops.gram import gram_sums
from basicsr.archs.ops.lstm import lstm_update
from basicsr.archs.transformer_blocks import TransformerBlock

pytestmark = pytest.mark.skipif(not dwconv_c.AVAILABLE, reason="there is no C compiler here")

MODULES = (channel_norm_c, conv3x3_c, dwconv_c, gram_c, lstm_c)
LIMITS = {torch.float32: 3e-6, torch.bfloat16: 4e-3}
Operation = Callable[..., Tensor | tuple[Tensor, ...]]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(
    scope="module",
    params=["", "-mno-avx512bf16", "-mno-avx512f", "-mno-avx"],
    ids=["native", "without bf16", "AVX2", "SSE"],
)
def processor(request, tmp_path_factory):
    """Compile for a processor that has less than this one."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param:
            patch.setenv("CC", f"cc {request.param}")
            patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
            for module in MODULES:
                name = module.__name__.rpartition(".")[2].removesuffix("_c")
                library = c_compiler.compiled_library(f"{name}.c")
                if library is None:
                    pytest.skip("not an x86 processor")
                patch.setattr(module, "_LIBRARY", library)
        yield


def image(dtype: torch.dtype, *shape: int) -> Tensor:
    x = (torch.randn(shape) + 0.5).to(dtype).contiguous(memory_format=torch.channels_last)
    return x.requires_grad_()


def parameter(*shape: int) -> Tensor:
    return torch.randn(shape).requires_grad_()


def error(value: Tensor, expected: Tensor) -> float:
    assert value.shape == expected.shape
    return ((value.double() - expected).norm() / expected.norm().clamp_min(1e-12)).item()


def check(in_c: Operation, eager: Operation, inputs: list[Tensor]) -> None:
    """Compare results and gradients with those of the definition in float64."""
    limit = LIMITS[inputs[0].dtype]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    results, expected = in_c(*inputs), eager(*exact)
    results, expected = (r if isinstance(r, tuple) else (r,) for r in (results, expected))
    weights = [torch.randn_like(result) for result in results]
    gradients = torch.autograd.grad(results, inputs, weights)
    references = torch.autograd.grad(expected, exact, [w.double() for w in weights])
    for value, reference in zip((*results, *gradients), (*expected, *references), strict=True):
        assert error(value, reference) < limit
    for value, given in zip(gradients, inputs, strict=True):
        assert value.dtype == given.dtype
    with torch.no_grad():
        without = in_c(*inputs)
    for value, other in zip(
        results, without if isinstance(without, tuple) else (without,), strict=True
    ):
        assert torch.equal(value, other)


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("shape", [(1, 5, 1, 1), (2, 24, 5, 7), (1, 33, 1, 9), (2, 128, 3, 3)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_channel_norm(processor, dtype, shape, has_bias):
    inputs = [image(dtype, *shape), *(parameter(shape[1]) for _ in range(1 + has_bias))]

    def in_c(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return channel_norm_c.channel_norm(x, weight, bias)

    def eager(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return channel_norm(x, weight, bias)

    check(in_c, eager, inputs)


@pytest.mark.parametrize(
    ("shape", "outputs"),
    [
        ((1, 1, 1, 1), 1),
        ((1, 3, 5, 1), 40),
        ((3, 24, 4, 9), 7),
        ((2, 33, 13, 18), 32),
        ((1, 48, 46, 45), 65),  # more tiles than are transformed at once
        ((1, 5, 90, 34), 3),  # weights that are transformed before
    ],
    ids=str,
)
@pytest.mark.parametrize("threads", [1, 3])
def test_conv3x3(processor, shape, outputs, threads, monkeypatch):
    monkeypatch.setattr(conv3x3_c, "CACHE", 2**16)  # several parts of the output channels
    inputs = [image(torch.float32, *shape), parameter(outputs, shape[1], 3, 3), parameter(outputs)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        check(conv3x3_c.conv3x3, conv3x3, inputs)
        check(
            lambda *each: conv3x3_c.conv3x3(*each, None), lambda *e: conv3x3(*e, None), inputs[:2]
        )
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize(
    ("shape", "heads"),
    [
        ((1, 2, 1, 5), 1),
        ((2, 24, 17, 7), 1),
        ((1, 66, 6, 11), 2),
        ((2, 192, 4, 4), 8),
        ((1, 9, 21, 19), 3),  # several chunks, the last with an odd number of pixels
    ],
)
def test_gram(processor, dtype, shape, heads, monkeypatch):
    monkeypatch.setattr(gram_c, "PART", 32)  # several parts of the pixels
    inputs = [image(dtype, *shape), image(dtype, *shape)]
    check(
        lambda q, k: tuple(gram_c.gram_sums(q, k, heads)),
        lambda q, k: tuple(gram_sums(q, k, heads)),
        inputs,
    )


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (2, 30, 5, 7), (1, 48, 1, 9), (1, 64, 35, 3)])
def test_gated_dwconv(processor, dtype, shape):
    c = shape[1]
    inputs = [image(dtype, *shape), parameter(c, 1, 3, 3), parameter(c)]
    check(gated_dwconv_c.gated_dwconv, gated_dwconv, inputs)


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize(
    ("shape", "parts"),
    [((1, 1, 1, 1), 1), ((2, 30, 5, 7), 2), ((1, 48, 1, 9), 3), ((2, 54, 35, 3), 3)],
)
def test_split_dwconv(processor, dtype, shape, parts, monkeypatch):
    monkeypatch.setattr(dwconv_c, "BAND", 8)  # several bands of rows
    c = shape[1]
    inputs = [image(dtype, *shape), parameter(c, 1, 3, 3), parameter(c)]
    check(
        lambda x, weight, bias: tuple(dwconv_c.split_dwconv(x, weight, bias, parts)),
        lambda x, weight, bias: split_dwconv(x, weight, bias, parts),
        inputs,
    )


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("shape", [(0, 4, 2, 2), (1, 1, 4, 5), (2, 16, 5, 7), (1, 37, 9, 3)])
@pytest.mark.parametrize("has_state", [True, False])
def test_lstm_update(processor, dtype, shape, has_state):
    n, c, h, w = shape
    gates = image(dtype, n, 4 * c, h, w).detach().mul(3).requires_grad_()
    inputs = [gates, image(dtype, *shape)][: 1 + has_state]
    check(
        lambda gates, c=None: lstm_c.lstm_update(gates, c),
        lambda gates, c=None: lstm_update(gates, c),
        inputs,
    )


@pytest.mark.parametrize("part", [0, 1])
def test_a_state_of_which_only_one_half_is_used(part):
    inputs = [image(torch.float32, 1, 12, 4, 5), image(torch.float32, 1, 3, 4, 5)]
    check(
        lambda *inputs: lstm_c.lstm_update(*inputs)[part],
        lambda *inputs: lstm_update(*inputs)[part],
        inputs,
    )


def test_parts_that_are_not_used_have_no_gradient():
    x, weight = image(torch.float32, 1, 6, 4, 5), parameter(6, 1, 3, 3)
    first, _, _ = dwconv_c.split_dwconv(x, weight, None, 3)
    _, _, third = dwconv_c.split_dwconv(x, weight, None, 3)
    for part, kept in ((first, slice(0, 2)), (third, slice(4, 6))):
        assert part.is_contiguous(memory_format=torch.channels_last)
        dx, d_weight = torch.autograd.grad(part.square().sum(), [x, weight])
        for gradient, along in ((dx, 1), (d_weight, 0)):
            used = gradient.movedim(along, 0)
            assert used[kept].any()
            assert torch.count_nonzero(used) == torch.count_nonzero(used[kept])


def test_gelu_in_bfloat16():
    gates = torch.linspace(-50, 50, 8001).bfloat16().view(1, 1, 1, -1)
    weight = torch.zeros(2, 1, 3, 3)
    weight[:, :, 1, 1] = 1  # the identity
    x = torch.cat([gates, torch.ones_like(gates)], dim=1).requires_grad_()
    result = gated_dwconv_c.gated_dwconv(x, weight, None)
    exact = gates.double().requires_grad_()
    expected = torch.nn.functional.gelu(exact)
    torch.testing.assert_close(result.double(), expected, rtol=4e-3, atol=4e-4)
    assert not result[gates < -5].any()
    (slope,) = torch.autograd.grad(result.sum(), x)
    (reference,) = torch.autograd.grad(expected.sum(), exact)
    torch.testing.assert_close(slope[:, :1].double(), reference, rtol=4e-3, atol=6e-4)


def check_second_derivatives(in_c: Operation, eager: Operation, inputs: list[Tensor]) -> None:
    seconds = []
    for function in (in_c, eager):
        results = function(*inputs)
        results = results if isinstance(results, tuple) else (results,)
        total = sum(result.pow(3).sum() for result in results)
        firsts = torch.autograd.grad(total, inputs, create_graph=True)
        seconds.append(torch.autograd.grad(sum(g.square().sum() for g in firsts), inputs))
    for value, expected in zip(*seconds, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-2)


def test_second_derivatives_are_those_of_the_definition():
    x, y = (image(torch.float32, 1, 4, 3, 2) for _ in range(2))
    check_second_derivatives(
        lambda q, k: tuple(gram_c.gram_sums(q, k, 2)),
        lambda q, k: tuple(gram_sums(q, k, 2)),
        [x, y],
    )
    check_second_derivatives(
        channel_norm_c.channel_norm, channel_norm, [x, parameter(4), parameter(4)]
    )
    check_second_derivatives(
        lambda *inputs: tuple(dwconv_c.split_dwconv(*inputs, 2)),
        lambda *inputs: split_dwconv(*inputs, 2),
        [x, parameter(4, 1, 3, 3), parameter(4)],
    )
    check_second_derivatives(
        lstm_c.lstm_update, lstm_update, [image(torch.float32, 1, 16, 3, 2), x]
    )
    check_second_derivatives(conv3x3_c.conv3x3, conv3x3, [x, parameter(5, 4, 3, 3), parameter(5)])


def test_operators_pass_the_checks_of_torch_library():
    x, weight = image(torch.float32, 1, 6, 3, 4), parameter(6)
    sums = torch.randn(1, 2, 5, 3)
    operators = torch.ops.derain
    for operator, arguments in (
        (operators.channel_norm_c, (x, weight, weight, 1e-5)),
        (operators.channel_norm_c_backward, (x, x, weight, None, 1e-5)),
        (operators.dwconv_c, (x, parameter(6, 1, 3, 3), weight, 3)),
        (operators.dwconv_c_backward, ([x[:, :3]] * 2, x, parameter(6, 1, 3, 3), None)),
        (operators.conv3x3_c, (x, parameter(5, 6, 3, 3), parameter(5))),
        (operators.conv3x3_c_backward, (x[:, :5], x, parameter(5, 6, 3, 3))),
        (operators.lstm_update_c, (image(torch.float32, 1, 24, 3, 4), x)),
        (operators.lstm_update_c, (image(torch.float32, 1, 24, 3, 4), None)),
        (operators.lstm_update_c_backward, (x, x, image(torch.float32, 1, 24, 3, 4), x)),
        (operators.gram_c, (x, x, 2)),
        (operators.gram_c_backward, (sums, x, x)),
    ):
        checks = ("test_schema", "test_autograd_registration", "test_faketensor")
        torch.library.opcheck(operator.default, arguments, test_utils=checks)


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize(("dim", "heads"), [(8, 2), (20, 1)])
def test_a_block_with_and_without_c(autocast, dim, heads, monkeypatch):
    block, x = TransformerBlock(dim, heads, 2.66), image(torch.float32, 2, dim, 9, 6)

    def gradients() -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = block(x)
        return [y, *torch.autograd.grad(y.float().square().sum(), [x, *block.parameters()])]

    in_c = gradients()
    monkeypatch.setattr(dwconv_c, "AVAILABLE", False)
    for value, expected in zip(in_c, gradients(), strict=True):
        assert error(value, expected.double()) < (0.05 if autocast else 1e-5)
