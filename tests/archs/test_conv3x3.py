"""The 3x3 convolution of the networks, and when it is computed in C."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

from basicsr.archs.conv3x3 import Conv3x3
from basicsr.archs.ops import conv3x3_c

in_c = pytest.mark.skipif(not conv3x3_c.AVAILABLE, reason="there is no C compiler here")


@pytest.fixture
def called(monkeypatch) -> list[tuple[int, ...]]:
    """Return the shapes of inputs that are convolved in C from now on."""
    shapes: list[tuple[int, ...]] = []
    conv3x3 = conv3x3_c.conv3x3

    def recording(x: Tensor, *others: Any) -> Tensor:
        shapes.append(tuple(x.shape))
        return conv3x3(x, *others)

    monkeypatch.setattr(conv3x3_c, "conv3x3", recording)
    return shapes


def image(channels: int = 16, side: int = 18) -> Tensor:
    return torch.randn(1, channels, side, side)


def test_it_has_the_weights_and_the_result_of_a_convolution_of_pytorch():
    torch.manual_seed(0)
    ours = Conv3x3(16, 24)
    torch.manual_seed(0)
    theirs = nn.Conv2d(16, 24, 3, padding=1)
    theirs.load_state_dict(ours.state_dict())
    x = image()
    torch.testing.assert_close(ours(x), theirs(x))
    assert torch.equal(ours.double()(x.double()), theirs.double()(x.double()))


@in_c
def test_float32_is_computed_in_c(called):
    conv, x = Conv3x3(16, 16), image()
    with torch.no_grad():
        conv(x)
    conv(x).sum().backward()
    assert called == [tuple(x.shape)] * 2


@in_c
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch.jit
def test_other_types_traces_and_compilers_have_the_convolution_of_pytorch(called):
    conv, x = Conv3x3(16, 16), image()
    with torch.autocast("cpu", torch.bfloat16):
        conv(x)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        conv(fake.from_tensor(x))
    torch.jit.trace(conv, x, check_trace=False)  # the check has no trace
    torch.compile(conv, backend="eager", fullgraph=True)(x)
    conv.double()(x.double())
    assert called == []


@in_c
def test_few_channels_and_small_images_have_the_convolution_of_pytorch(called):
    Conv3x3(3, 16)(image(3))
    Conv3x3(16, 3)(image())
    Conv3x3(16, 16)(image(side=8))
    assert called == []


@in_c
def test_other_arguments_are_left_to_pytorch():
    conv = Conv3x3(16, 16)
    assert conv(image()[0]).shape == (16, 18, 18)
    with pytest.raises(RuntimeError, match="expected input"):
        conv(image(17))
    conv.bias = nn.Parameter(conv.bias.detach().double())
    with pytest.raises(RuntimeError, match="type"):
        conv(image())


@in_c
def test_forward_mode_and_torch_func_have_the_convolution_of_pytorch():
    conv, x, tangent = Conv3x3(16, 16), image(), image()
    expected = conv(tangent) - conv.bias[:, None, None]
    _, derivative = torch.func.jvp(conv, (x,), (tangent,))
    torch.testing.assert_close(derivative, expected)
    with torch.no_grad(), forward_ad.dual_level():
        dual = conv(forward_ad.make_dual(x, tangent))
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, expected)
    gradient = torch.func.grad(lambda x: conv(x).sum())(x)
    x.requires_grad_()
    torch.testing.assert_close(gradient, torch.autograd.grad(conv(x).sum(), x)[0])
    torch.testing.assert_close(torch.func.vmap(conv)(x[None])[0], conv(x))


@in_c
def test_the_result_can_be_changed_in_place():
    conv, x = Conv3x3(16, 16), image().requires_grad_()
    expected = torch.autograd.grad(conv(x).relu().sum(), x)
    assert torch.equal(torch.autograd.grad(conv(x).relu_().sum(), x)[0], expected[0])


@in_c
def test_results_and_gradients_do_not_depend_on_the_number_of_threads():
    conv, x = Conv3x3(32, 40), torch.randn(2, 32, 61, 50, requires_grad=True)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            y = conv(x)
            results.append([y, *torch.autograd.grad(y.square().sum(), [x, conv.weight])])
    finally:
        torch.set_num_threads(before)
    for others in results[1:]:
        for value, first in zip(others, results[0], strict=True):
            assert torch.equal(value, first)


@in_c
def test_missing_memory_is_an_error():
    """The batch is empty, so that nothing is read or written."""
    x = torch.empty(0, 1, 4, 4).expand(0, 2**50, 4, 4)
    with pytest.raises(MemoryError, match="conv3x3: cannot allocate memory"):
        conv3x3_c._run("conv3x3", 1, {"parts": 1}, x=x)
