"""The C version of the gated convolution against its definition in float64; its compilation."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from basicsr.archs.ops import c_compiler, dwconv_c, gated_dwconv_c
from basicsr.archs.ops.gated_dwconv import gated_dwconv as eager
from basicsr.archs.ops.gated_dwconv_c import gated_dwconv
from basicsr.archs.transformer_blocks import GDFN, TransformerBlock

in_c = pytest.mark.skipif(not dwconv_c.AVAILABLE, reason="there is no C compiler here")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def random(*shape: int) -> Tensor:
    x = torch.randn(shape)
    return (x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x).requires_grad_()


def error(value: Tensor, expected: Tensor) -> float:
    assert value.shape == expected.shape
    return ((value.double() - expected).norm() / expected.norm().clamp_min(1e-12)).item()


@in_c
@pytest.mark.parametrize(
    "shape",
    [
        (0, 16, 3, 3),
        (1, 16, 1, 1),
        (1, 16, 16, 6),
        (2, 64, 5, 7),  # a block of channels for each image
        (1, 96, 2, 4),  # a block and a half
        (12, 420, 3, 5),  # blocks of the greatest width
        (3, 80, 67, 9),  # bands of rows
    ],
    ids=str,
)
@pytest.mark.parametrize("has_bias", [True, False])
def test_values_and_gradients(shape, has_bias, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)  # for several bands
    c = shape[1]
    inputs = [random(*shape), random(c, 1, 3, 3), random(c) if has_bias else None]
    exact = [x if x is None else x.detach().double().requires_grad_() for x in inputs]
    result, expected = gated_dwconv(*inputs), eager(*exact)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert error(result, expected) < 1e-6
    weights = torch.randn_like(result)
    gradients = torch.autograd.grad(result, [x for x in inputs if x is not None], weights)
    wanted = [x for x in exact if x is not None]
    references = torch.autograd.grad(expected, wanted, weights.double())
    for value, reference in zip(gradients, references, strict=True):
        assert error(value, reference) < 2e-6


@in_c
def test_gelu_is_the_exact_one_wherever_it_is_not_zero():
    gates = torch.linspace(-9, 40, 4001).view(1, 1, 1, -1).expand(1, 8, 1, -1)
    weight = torch.zeros(16, 1, 3, 3)
    weight[:, :, 1, 1] = 1  # the identity
    x = torch.cat([gates, torch.ones_like(gates)], dim=1).requires_grad_()
    result = gated_dwconv(x, weight, None)
    exact = gates.double().requires_grad_()
    expected = torch.special.erfc(-exact / 2**0.5) / 2 * exact
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=0)
    (slope,) = torch.autograd.grad(result.sum(), x)
    (reference,) = torch.autograd.grad(expected.sum(), exact)
    torch.testing.assert_close(slope[:, :8].double(), reference, rtol=1e-5, atol=1e-7)
    far = gated_dwconv(torch.full((1, 16, 1, 1), -1e4), weight, None)
    assert far.isfinite().all()
    assert far.abs().max() < 1e-6


@in_c
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_of_nan_are_nan(dtype):
    x = torch.randn(1, 4, 7, 7)
    x[0, :, 3, 3] = torch.nan
    x = x.to(dtype).requires_grad_()
    (dx,) = torch.autograd.grad(gated_dwconv(x, torch.randn(4, 1, 3, 3), None).sum(), x)
    nan = torch.zeros(7, 7, dtype=torch.bool)
    nan[1:6, 1:6] = True
    assert torch.equal(dx.isnan(), nan.expand(1, 4, 7, 7))


@in_c
def test_other_memory_formats_and_parts_of_tensors():
    weight, whole = random(16, 1, 3, 3), torch.randn(1, 40, 6, 5)
    x = whole[:, 8:24, 1:5]
    expected = gated_dwconv(x.contiguous(memory_format=torch.channels_last), weight, None)
    for each in (x, whole.contiguous(memory_format=torch.channels_last)[:, 8:24, 1:5]):
        assert torch.equal(gated_dwconv(each, weight, None), expected)


@in_c
def test_second_derivatives_are_those_of_the_definition():
    inputs = [random(1, 16, 3, 2), random(16, 1, 3, 3), random(16)]
    seconds = []
    for function in (gated_dwconv, eager):
        firsts = torch.autograd.grad(function(*inputs).pow(3).sum(), inputs, create_graph=True)
        seconds.append(torch.autograd.grad(sum(g.square().sum() for g in firsts), inputs))
    for value, expected in zip(*seconds, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-2)


@in_c
def test_operators_pass_the_checks_of_torch_library():
    x, kernel, bias = random(1, 16, 3, 4), random(16, 1, 3, 3), random(16)
    operators = torch.ops.derain
    for operator, arguments in (
        (operators.gated_dwconv_c, (x, kernel, bias)),
        (operators.gated_dwconv_c_backward, (random(1, 8, 3, 4), x, kernel, None)),
    ):
        checks = ("test_schema", "test_autograd_registration", "test_faketensor")
        torch.library.opcheck(operator.default, arguments, test_utils=checks)


@in_c
@pytest.mark.parametrize("compiled", [False, True])
def test_a_block_with_and_without_c(compiled, monkeypatch):
    block, x = TransformerBlock(8, 2, 2.66), random(2, 8, 5, 6)

    def gradients(function: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        y = function(x)
        return (y, *torch.autograd.grad(y.square().sum(), [x, *block.parameters()]))

    called = []
    call = dwconv_c.call

    def recording(name: str, *tensors: Tensor, gated: bool = False, **numbers: int) -> None:
        called.append(f"gated_{name}" if gated else name)
        call(name, *tensors, gated=gated, **numbers)

    monkeypatch.setattr(dwconv_c, "call", recording)
    function = torch.compile(block, fullgraph=True, backend="aot_eager") if compiled else block
    results = gradients(function)
    assert called == ["dwconv", "gated_dwconv", "gated_dwconv_backward", "dwconv_backward"]
    monkeypatch.setattr(dwconv_c, "AVAILABLE", False)
    for value, expected in zip(results, gradients(block), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


@in_c
def test_float32_and_bfloat16_are_computed_in_c(monkeypatch):
    called = []
    monkeypatch.setattr(
        gated_dwconv_c, "gated_dwconv", lambda x, *_: called.append(x.dtype) or x[:, ::2]
    )
    part, x = GDFN(4, 2.0), torch.randn(1, 4, 3, 3)
    part.double()(x.double())
    part.float()
    with torch.autocast("cpu", torch.float16):
        part(x)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        part(fake.from_tensor(x))
    assert called == []
    part(x)
    with torch.autocast("cpu", torch.bfloat16):
        part(x)
    assert called == [torch.float32, torch.bfloat16]


@in_c
def test_missing_memory_for_a_row_is_an_error():
    """The batch is empty, so that nothing is read or written."""
    x = torch.empty(0, 16, 1, 1).expand(0, 16, 1, 2**50)
    with pytest.raises(MemoryError, match="cannot allocate memory for"):
        dwconv_c.call("dwconv", x, None, None, [None], parts=2, bands=1, block=32, gated=True)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(logging.getLogger("basicsr"), "propagate", True)
    return tmp_path / "dtpnet-derain"


@in_c
def test_the_library_is_compiled_once(cache, monkeypatch):
    assert c_compiler.compiled_library("dwconv.c") is not None
    (library,) = cache.iterdir()
    monkeypatch.setattr(c_compiler, "_build", None)
    assert c_compiler.compiled_library("dwconv.c")._name == str(library)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("no-such-compiler", "No such file or directory: 'no-such-compiler'"),
        ("false", "exit status 1"),
    ],
)
def test_without_a_compiler_pytorch_computes(cache, monkeypatch, caplog, command, reason):
    monkeypatch.setenv("CC", command)
    with caplog.at_level(logging.INFO, "basicsr"):
        assert c_compiler.compiled_library("dwconv.c") is None
    (message,) = caplog.messages
    assert message.startswith("dwconv.c is not compiled, and PyTorch computes it more slowly")
    assert reason in message


@in_c
def test_the_compiler_message_is_logged(cache, monkeypatch, caplog, tmp_path):
    (tmp_path / "wrong.c").write_text("int main(void) { return nothing; }")
    monkeypatch.setattr(c_compiler, "__file__", str(tmp_path / "c_compiler.py"))
    with caplog.at_level(logging.INFO, "basicsr"):
        assert c_compiler.compiled_library("wrong.c") is None
    assert "nothing" in caplog.messages[0]
    assert not any(cache.iterdir())


def test_gcc_compiles_it(cache, monkeypatch):
    if shutil.which("gcc") is None or sys.platform != "linux":
        pytest.skip("needs GCC on Linux")
    monkeypatch.setenv("CC", "gcc")
    assert c_compiler.compiled_library("dwconv.c") is not None


@in_c
def test_a_cache_of_another_user_is_not_used(cache, monkeypatch, caplog):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with caplog.at_level(logging.INFO, "basicsr"):
        assert c_compiler.compiled_library("dwconv.c") is None
    assert "belongs to another user" in caplog.messages[0]


@in_c
@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077, 0o277])
def test_the_cache_is_private_under_any_umask(cache, umask):
    before = os.umask(umask)
    try:
        assert c_compiler.compiled_library("dwconv.c") is not None
    finally:
        os.umask(before)
    assert cache.stat().st_mode & 0o777 == 0o700


@in_c
def test_a_cache_that_was_open_to_others_is_closed_and_what_they_wrote_is_not_loaded(cache):
    assert c_compiler.compiled_library("dwconv.c") is not None
    cache.chmod(0o775)
    (library,) = cache.iterdir()
    planted = b"written by somebody"
    library.unlink()  # this process has loaded the file, and must not see it change
    library.write_bytes(planted)
    library.chmod(0o666)
    assert c_compiler.compiled_library("dwconv.c") is not None
    assert cache.stat().st_mode & 0o777 == 0o700
    assert library.read_bytes() != planted


@in_c
def test_weights_of_other_types_and_strides():
    x, weight, bias = random(1, 16, 3, 4), random(16, 1, 3, 3), random(32)[::2]
    expected = gated_dwconv(x, weight, bias.contiguous())
    torch.testing.assert_close(gated_dwconv(x, weight.double(), bias), expected)
