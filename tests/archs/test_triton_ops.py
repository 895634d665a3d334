"""The kernels against their eager twins in float64.

On a GPU where there is one. Elsewhere `test_all_of_this_in_the_interpreter` runs this file again in
Triton's interpreter, which computes on the CPU, and kernels are compiled for an absent GPU.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from basicsr.archs import build_network, ops
from basicsr.archs.transformer_blocks import TransformerBlock

triton = pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}

kinds = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
sizes = pytest.mark.parametrize("size", [(1, 1, 1), (2, 5, 7)], ids=str)  # batch, rows, columns


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def kernels(device):
    """The module, where kernels can run."""
    if device.type != "cuda" and not INTERPRETED:
        pytest.skip("needs a GPU; test_all_of_this_in_the_interpreter runs it without")
    from basicsr.archs import triton_ops

    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")  # else float32 Gram matrices use no kernel
    yield triton_ops
    torch.set_float32_matmul_precision(precision)


def random(device: torch.device, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(shape, device=device, dtype=dtype)
    return (x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x).requires_grad_()


def error(value: Tensor, expected: Tensor) -> float:
    assert value.shape == expected.shape
    return ((value.double() - expected).norm() / expected.norm().clamp_min(1e-12)).item()


def check(
    function: Callable[..., Any], name: str, inputs: list[Any], tolerance: float
) -> tuple[Tensor, ...]:
    """The results of `function`: they and their gradients are those of the eager `name`."""
    exact = [x.detach().double().requires_grad_() if isinstance(x, Tensor) else x for x in inputs]
    results = function(*inputs)
    expected = inspect.unwrap(getattr(ops, name))(*exact)
    results, expected = (x if isinstance(x, tuple) else (x,) for x in (results, expected))
    weights = [torch.randn_like(x) for x in results]
    wanted, exact_wanted = ([x for x in each if isinstance(x, Tensor)] for each in (inputs, exact))
    gradients = torch.autograd.grad(results, wanted, weights)
    exact_gradients = torch.autograd.grad(expected, exact_wanted, [w.double() for w in weights])
    for value, reference in zip((*results, *gradients), (*expected, *exact_gradients), strict=True):
        assert error(value, reference) < tolerance
    for x, gradient in zip(wanted, gradients, strict=True):
        assert gradient.dtype == x.dtype
    return results


@kinds
@sizes
@pytest.mark.parametrize("channels", [3, 48])
@pytest.mark.parametrize("centred", [True, False])
def test_channel_norm(kernels, device, dtype, size, channels, centred):
    n, h, w = size
    x = random(device, n, channels, h, w, dtype=dtype)
    weight, bias = random(device, channels), random(device, channels) if centred else None
    (result,) = check(
        kernels.channel_norm, "channel_norm", [x, weight, bias, 1e-5], TOLERANCE[dtype]
    )
    assert result.dtype == dtype
    assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("centred", [True, False])
def test_channel_norm_of_more_pixels_than_programs(kernels, device, centred):
    """A program of the backward pass then does several blocks; the last one is not full."""
    x, weight = random(device, 1, 513, 3, 3 if INTERPRETED else 4001), random(device, 513)
    bias = random(device, 513) if centred else None
    check(kernels.channel_norm, "channel_norm", [x, weight, bias, 1e-5], 2e-6)


@pytest.mark.parametrize(
    ("dtype", "shape", "has_bias"),
    [
        (torch.float32, (1, 6, 5, 2), True),  # programs have 4 rows, 16 columns and 128 bytes
        (torch.float32, (2, 6, 1, 17), False),
        (torch.float32, (1, 2 * 35, 1, 1), False),
        (torch.bfloat16, (1, 6, 5, 2), True),
    ],
    ids=str,
)
def test_depthwise_convolutions(kernels, device, dtype, shape, has_bias):
    x, channels = random(device, *shape, dtype=dtype), shape[1]
    weight, bias = random(device, channels, 1, 3, 3), random(device, channels) if has_bias else None
    with torch.no_grad():  # which both round, but the reference does not round them
        for parameter in (weight, bias):
            if parameter is not None:
                parameter.copy_(parameter.to(dtype))
    for name in ("dwconv", "gated_dwconv"):
        (result,) = check(getattr(kernels, name), name, [x, weight, bias], TOLERANCE[dtype])
        assert result.dtype == dtype
        assert result.is_contiguous(memory_format=torch.channels_last)


@kinds
@sizes
@pytest.mark.parametrize("heads", [1, 2])
def test_gram_sums(kernels, device, dtype, size, heads):
    n, h, w = size
    x = random(device, n, 60, h, w, dtype=dtype)

    def of_parts(x: Tensor) -> ops.Gram:
        q, k, _ = x.chunk(3, dim=1)
        return kernels.gram_sums(q, k, heads)

    reference = x.detach().double().requires_grad_()
    q, k, _ = reference.chunk(3, dim=1)
    expected = inspect.unwrap(ops.gram_sums)(q, k, heads)
    result = of_parts(x)
    weights = [torch.randn_like(each) for each in result]
    tolerance = 2e-6 if INTERPRETED else 2e-3  # the hardware multiplies tf32
    for value, exact in zip(result, expected, strict=True):
        assert value.dtype == torch.float32
        assert error(value, exact) < tolerance
    (gradient,) = torch.autograd.grad(result, x, weights)
    (exact,) = torch.autograd.grad(expected, reference, [each.double() for each in weights])
    assert error(gradient, exact) < max(tolerance, TOLERANCE[dtype])


def test_gram_sums_over_many_pixels(kernels, device):
    """Several programs have parts of the sum, and several blocks each."""
    q, k = (random(device, 1, 16, 1, 1030 if INTERPRETED else 200_003) for _ in range(2))
    check(kernels.gram_sums, "gram_sums", [q, k, 1], 2e-6 if INTERPRETED else 2e-3)


def test_exact_and_wide_gram_sums_are_left_to_the_libraries(kernels, device):
    q, k = (random(device, 1, 130, 2, 2) for _ in range(2))
    check(kernels.gram_sums, "gram_sums", [q, k, 1], 2e-3)
    torch.set_float32_matmul_precision("highest")
    check(kernels.gram_sums, "gram_sums", [q, k, 2], 2e-6)


def test_other_memory_formats(kernels, device):
    x = torch.randn(1, 4, 3, 5, device=device)
    weight, kernel = random(device, 4), random(device, 4, 1, 3, 3)
    last = x.contiguous(memory_format=torch.channels_last)
    for function, *arguments in (
        (kernels.channel_norm, weight, None),
        (kernels.gated_dwconv, kernel, None),
        (lambda x: kernels.gram_sums(x, x, 1).products,),
    ):
        torch.testing.assert_close(function(x, *arguments), function(last, *arguments))


@pytest.mark.parametrize("name", ["channel_norm", "dwconv", "gated_dwconv", "gram_sums"])
def test_second_derivatives_are_the_eager_ones(kernels, device, name):
    inputs: dict[str, list[Any]] = {
        "channel_norm": [random(device, 1, 4, 2, 3), random(device, 4), random(device, 4)],
        "dwconv": [random(device, 1, 4, 2, 3), random(device, 4, 1, 3, 3), random(device, 4)],
        "gated_dwconv": [random(device, 1, 4, 2, 3), random(device, 4, 1, 3, 3), None],
        "gram_sums": [random(device, 1, 4, 2, 3), random(device, 1, 4, 2, 3), 2],
    }
    arguments = inputs[name]
    wanted = [x for x in arguments if isinstance(x, Tensor)]
    seconds = []
    for function in (getattr(kernels, name), inspect.unwrap(getattr(ops, name))):
        result = function(*arguments)
        total = sum(x.pow(3).sum() for x in (result if isinstance(result, tuple) else [result]))
        firsts = torch.autograd.grad(total, wanted, create_graph=True)
        seconds.append(torch.autograd.grad(sum(g.square().sum() for g in firsts), wanted))
    for value, expected in zip(*seconds, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-3)


def test_operators_keep_the_rules_of_torch_library(kernels, device):
    """Shapes, strides and types of the results are as announced; gradients are registered."""
    x, weight, kernel = (random(device, *shape) for shape in ((1, 6, 3, 4), (6,), (6, 1, 3, 3)))
    operators = torch.ops.derain
    for operator, arguments in (
        (operators.channel_norm, (x, weight, weight, 1e-5)),
        (operators.channel_norm_backward, (x, x, weight, False, 1e-5)),
        (operators.gated_dwconv, (x, kernel, None)),
        (operators.gate_backward, (x[:, :3], x, kernel, weight)),
        (operators.dwconv, (x, kernel, weight)),
        (operators.dwconv_backward, (x, x, kernel)),
        (operators.gram_sums, (x, x, 3)),
        (operators.gram_sums_backward, (random(device, 1, 3, 4, 2), x, x, 3)),
    ):
        checks = ("test_schema", "test_autograd_registration", "test_faketensor")
        torch.library.opcheck(operator.default, arguments, test_utils=checks)


@pytest.mark.parametrize(("precision", "compiled"), [("fp32", False), ("bf16", True)])
def test_a_block_of_them(kernels, device, monkeypatch, precision, compiled):
    """Through the choice in `ops`, which is made to choose kernels where there is no GPU."""
    block = TransformerBlock(8, 2, 2.0).to(device, memory_format=torch.channels_last)
    x = random(device, 1, 8, 2, 3)

    def gradients(function: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            y = function(x).float()
        return torch.autograd.grad(y.square().sum(), [x, *block.parameters()])

    monkeypatch.setattr(ops, "has_kernels", lambda x: False)
    expected = gradients(block)
    monkeypatch.setattr(ops, "has_kernels", lambda x: True)
    function: Any = block
    if compiled:
        backend = "inductor" if device.type == "cuda" else "aot_eager"
        function = torch.compile(block, fullgraph=True, backend=backend)
    for value, reference in zip(gradients(function), expected, strict=True):
        assert error(value, reference.double()) < (0.05 if precision == "bf16" else 2e-3)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_operations_on_a_gpu_are_these(monkeypatch):
    from basicsr.archs import triton_ops

    monkeypatch.setattr(ops, "FAST_GPU", True)
    monkeypatch.setattr(triton_ops, "channel_norm", lambda x, weight, bias, eps=1e-5: "kernel")
    x, weight = torch.randn(1, 4, 2, 2, device="cuda"), torch.ones(4, device="cuda")
    assert ops.channel_norm(x, weight, None) == "kernel"
    assert isinstance(ops.channel_norm(x.double(), weight.double(), None), Tensor)
    assert isinstance(ops.channel_norm(x.cpu(), weight.cpu(), None), Tensor)


def test_networks_on_a_gpu_compute_with_kernels(monkeypatch):
    """Whether a GPU is there or not: these tensors have shapes, but no data."""
    called = set()
    monkeypatch.setattr(ops, "FAST_GPU", True)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            called.add(str(func))
            return func(*args, **(kwargs or {}))

    with FakeTensorMode(), torch.device("cuda"), Watch(), torch.no_grad():
        network = build_network({"type": "DTPNet-T"})
        assert network(torch.empty(1, 3, 24, 32)).shape == (1, 3, 24, 32)
    names = ("channel_norm", "dwconv", "gated_dwconv", "gram_sums")
    assert {name for name in called if "derain" in name} == {f"derain.{x}.default" for x in names}


@pytest.mark.parametrize(("shared", "widest"), [(101376, 64), (166912, 128), (232448, 128)])
def test_wide_heads_need_the_shared_memory_of_large_gpus(monkeypatch, shared, widest):
    """That of an RTX 3090, an A100 and an H100."""
    from basicsr.archs.triton_ops import gram

    properties = SimpleNamespace(shared_memory_per_block_optin=shared)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: properties)
    assert gram._widest_head() == widest


@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels run on the GPU")
def test_all_of_this_in_the_interpreter():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "passed" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled for the interpreter")
@kinds
def test_compile_for_a_gpu_that_is_not_there(monkeypatch, dtype):
    """For Hopper: with vectors of 16 bytes, and nothing spilled from registers (of DTPNet's own
    sizes, hidden channels padded)."""
    from triton.runtime.jit import JITFunction

    from basicsr.archs import triton_ops

    launches: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
    monkeypatch.setattr(
        JITFunction,
        "run",
        lambda self, *args, grid, warmup, **constants: launches.append((self, args, constants)),
    )
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    cpu = torch.device("cpu")
    x, q, k = (random(cpu, 1, width, 16, 16, dtype=dtype) for width in (352, 64, 64))
    results = [
        triton_ops.channel_norm(q, random(cpu, 64), random(cpu, 64)),
        triton_ops.dwconv(q, random(cpu, 64, 1, 3, 3), None),
        triton_ops.gated_dwconv(x, random(cpu, 352, 1, 3, 3), None),
        *triton_ops.gram_sums(q, k, 1),
    ]
    torch.autograd.backward(results, [torch.ones_like(result) for result in results])
    assert len(launches) == 9
    for kernel, arguments, constants in launches:
        compiled = compiled_for_hopper(kernel, arguments, constants)
        assert ".v4.b32" in compiled.asm["ptx"]
        assert "stack 0" in resources(compiled.asm["cubin"])


def compiled_for_hopper(kernel: Any, arguments: tuple[Any, ...], constants: dict[str, Any]) -> Any:
    """A launch's kernel, specialised as Triton does it for these arguments."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}
    options = {"num_warps": constants.pop("num_warps")}
    signature, constexprs, attributes = {}, {}, {}
    bound = inspect.signature(kernel.fn).bind(*arguments, **constants).arguments
    for i, (name, value) in enumerate(bound.items()):
        if isinstance(value, Tensor):
            signature[name], attributes[(i,)] = types[value.dtype], [["tt.divisibility", 16]]
        elif kernel.params[i].is_constexpr or value is None or value == 1:
            signature[name], constexprs[(i,)] = "constexpr", value
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32"
            if value % 16 == 0:
                attributes[(i,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constexprs, attributes)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


def resources(cubin: bytes) -> str:
    """What a kernel takes, in lower case: "reg 40 stack 0 ..."."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [tool, "--dump-resource-usage", file.name]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return told.lower().replace(":", " ")
