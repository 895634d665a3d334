"""The Triton kernels against the definitions of their operations in float64.

They run on a GPU if there is one. Otherwise `test_all_of_this_in_the_interpreter` runs this file
again in Triton's interpreter, which computes on the CPU, and kernels are compiled for a GPU that is
not present.
"""

from __future__ import annotations

import importlib
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
from basicsr.archs.ops.gram import Gram
from basicsr.archs.transformer_blocks import TransformerBlock

triton = pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
MODULES = {
    "channel_norm": "channel_norm",
    "gram_sums": "gram",
}
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}

dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
sizes = pytest.mark.parametrize("size", [(1, 1, 1), (2, 5, 7)], ids=str)  # batch, rows, columns


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def eager(name: str) -> Callable[..., Any]:
    """Return the definition of an operation in PyTorch."""
    return getattr(importlib.import_module(f"basicsr.archs.ops.{MODULES[name]}"), name)


def function_of(name: str) -> Callable[..., Any]:
    """Return the Triton version of an operation."""
    return getattr(importlib.import_module(f"basicsr.archs.ops.{MODULES[name]}_triton"), name)


@pytest.fixture
def kernels(device):
    """The Triton versions by name, if kernels can run here."""
    if device.type != "cuda" and not INTERPRETED:
        pytest.skip("needs a GPU; test_all_of_this_in_the_interpreter runs it without")
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")  # else float32 Gram matrices use no kernel
    yield function_of
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
    """Compare results and gradients of `function` with the definition of `name`; return results."""
    exact = [x.detach().double().requires_grad_() if isinstance(x, Tensor) else x for x in inputs]
    results = function(*inputs)
    expected = eager(name)(*exact)
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


@dtypes
@sizes
@pytest.mark.parametrize("channels", [3, 48])
@pytest.mark.parametrize("centred", [True, False])
def test_channel_norm(kernels, device, dtype, size, channels, centred):
    n, h, w = size
    x = random(device, n, channels, h, w, dtype=dtype)
    weight, bias = random(device, channels), random(device, channels) if centred else None
    (result,) = check(
        kernels("channel_norm"), "channel_norm", [x, weight, bias, 1e-5], TOLERANCE[dtype]
    )
    assert result.dtype == dtype
    assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("centred", [True, False])
def test_channel_norm_of_more_pixels_than_programs(kernels, device, centred):
    """Programs of the backward pass then process several blocks; the last one is not full."""
    x, weight = random(device, 1, 513, 3, 3 if INTERPRETED else 4001), random(device, 513)
    bias = random(device, 513) if centred else None
    check(kernels("channel_norm"), "channel_norm", [x, weight, bias, 1e-5], 2e-6)


@dtypes
@sizes
@pytest.mark.parametrize("heads", [1, 2])
def test_gram_sums(kernels, device, dtype, size, heads):
    n, h, w = size
    x = random(device, n, 60, h, w, dtype=dtype)

    def of_parts(x: Tensor) -> Gram:
        q, k, _ = x.chunk(3, dim=1)
        return kernels("gram_sums")(q, k, heads)

    reference = x.detach().double().requires_grad_()
    q, k, _ = reference.chunk(3, dim=1)
    expected = eager("gram_sums")(q, k, heads)
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
    """Several programs compute parts of the sum, from several blocks each."""
    q, k = (random(device, 1, 16, 1, 1030 if INTERPRETED else 200_003) for _ in range(2))
    check(kernels("gram_sums"), "gram_sums", [q, k, 1], 2e-6 if INTERPRETED else 2e-3)


def test_exact_and_wide_gram_sums_are_left_to_the_libraries(kernels, device):
    q, k = (random(device, 1, 130, 2, 2) for _ in range(2))
    check(kernels("gram_sums"), "gram_sums", [q, k, 1], 2e-3)
    torch.set_float32_matmul_precision("highest")
    check(kernels("gram_sums"), "gram_sums", [q, k, 2], 2e-6)


def test_other_memory_formats(kernels, device):
    x = torch.randn(1, 4, 3, 5, device=device)
    weight = random(device, 4)
    last = x.contiguous(memory_format=torch.channels_last)
    for function, *arguments in (
        (kernels("channel_norm"), weight, None),
        (lambda x: kernels("gram_sums")(x, x, 1).products,),
    ):
        torch.testing.assert_close(function(x, *arguments), function(last, *arguments))


@pytest.mark.parametrize("name", ["channel_norm", "gram_sums"])
def test_second_derivatives_are_those_of_the_definition(kernels, device, name):
    inputs: dict[str, list[Any]] = {
        "channel_norm": [random(device, 1, 4, 2, 3), random(device, 4), random(device, 4)],
        "gram_sums": [random(device, 1, 4, 2, 3), random(device, 1, 4, 2, 3), 2],
    }
    arguments = inputs[name]
    wanted = [x for x in arguments if isinstance(x, Tensor)]
    seconds = []
    for function in (kernels(name), eager(name)):
        result = function(*arguments)
        total = sum(x.pow(3).sum() for x in (result if isinstance(result, tuple) else [result]))
        firsts = torch.autograd.grad(total, wanted, create_graph=True)
        seconds.append(torch.autograd.grad(sum(g.square().sum() for g in firsts), wanted))
    for value, expected in zip(*seconds, strict=True):
        assert error(value, expected.double()) < (1e-4 if INTERPRETED else 2e-2)  # products in tf32


def test_operators_pass_the_checks_of_torch_library(kernels, device):
    """Shapes, strides and types of the results are as announced; gradients are registered."""
    x, weight = random(device, 1, 6, 3, 4), random(device, 6)
    for name in MODULES:
        kernels(name)  # registers its operators
    operators = torch.ops.derain
    for operator, arguments in (
        (operators.channel_norm, (x, weight, weight, 1e-5)),
        (operators.channel_norm_backward, (x, x, weight, False, 1e-5)),
        (operators.gram_sums, (x, x, 3)),
        (operators.gram_sums_backward, (random(device, 1, 3, 4, 2), x, x, 3)),
    ):
        checks = ("test_schema", "test_autograd_registration", "test_faketensor")
        torch.library.opcheck(operator.default, arguments, test_utils=checks)


@pytest.mark.parametrize(("precision", "compiled"), [("fp32", False), ("bf16", True)])
def test_a_block_with_kernels(kernels, device, monkeypatch, precision, compiled):
    """Dispatch is made to choose kernels even without a GPU."""
    block = TransformerBlock(8, 2, 2.0).to(device, memory_format=torch.channels_last)
    x = random(device, 1, 8, 2, 3)

    def gradients(function: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            y = function(x).float()
        return torch.autograd.grad(y.square().sum(), [x, *block.parameters()])

    monkeypatch.setattr(ops.dispatch, "uses_triton", lambda x: False)
    expected = gradients(block)
    monkeypatch.setattr(ops.dispatch, "uses_triton", lambda x: True)
    function: Any = block
    if compiled:
        backend = "inductor" if device.type == "cuda" else "aot_eager"
        function = torch.compile(block, fullgraph=True, backend=backend)
    for value, reference in zip(gradients(function), expected, strict=True):
        assert error(value, reference.double()) < (0.05 if precision == "bf16" else 2e-3)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_operations_on_a_gpu_are_these(monkeypatch):
    from basicsr.archs.ops import channel_norm_triton

    monkeypatch.setattr(
        channel_norm_triton, "channel_norm", lambda x, weight, bias, eps=1e-5: "kernel"
    )
    x, weight = torch.randn(1, 4, 2, 2, device="cuda"), torch.ones(4, device="cuda")
    assert ops.channel_norm(x, weight, None) == "kernel"
    assert isinstance(ops.channel_norm(x.double(), weight.double(), None), Tensor)
    assert isinstance(ops.channel_norm(x.cpu(), weight.cpu(), None), Tensor)


def test_networks_on_a_gpu_compute_with_kernels(monkeypatch):
    """No GPU is needed: these tensors have shapes, but no data."""
    called = set()
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            called.add(str(func))
            return func(*args, **(kwargs or {}))

    with FakeTensorMode(), torch.device("cuda"), Watch(), torch.no_grad():
        network = build_network({"type": "DTPNet-T"})
        assert network(torch.empty(1, 3, 24, 32)).shape == (1, 3, 24, 32)
    names = ("channel_norm", "gram_sums")
    assert {name for name in called if "derain" in name} == {f"derain.{x}.default" for x in names}


@pytest.mark.parametrize(("shared", "widest"), [(101376, 64), (166912, 128), (232448, 128)])
def test_wide_heads_need_the_shared_memory_of_large_gpus(monkeypatch, shared, widest):
    """Shared memory of an RTX 3090, an A100 and an H100."""
    from basicsr.archs.ops import gram_triton

    properties = SimpleNamespace(shared_memory_per_block_optin=shared)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: properties)
    assert gram_triton._widest_head() == widest


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
@dtypes
def test_compile_for_a_gpu_that_is_not_there(monkeypatch, dtype):
    """Kernels for Hopper load vectors of 16 bytes, and spill no registers.

    The sizes are DTPNet's.
    """
    from triton.runtime.jit import JITFunction

    launches: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
    monkeypatch.setattr(
        JITFunction,
        "run",
        lambda self, *args, grid, warmup, **constants: launches.append((self, args, constants)),
    )
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    cpu = torch.device("cpu")
    q, k = (random(cpu, 1, 64, 16, 16, dtype=dtype) for _ in range(2))
    results = [
        function_of("channel_norm")(q, random(cpu, 64), random(cpu, 64)),
        *function_of("gram_sums")(q, k, 1),
    ]
    torch.autograd.backward(results, [torch.ones_like(result) for result in results])
    assert len(launches) == 4
    for kernel, arguments, constants in launches:
        compiled = compiled_for_hopper(kernel, arguments, constants)
        assert ".v4.b32" in compiled.asm["ptx"]
        assert "stack 0" in resources(compiled.asm["cubin"])


def compiled_for_hopper(kernel: Any, arguments: tuple[Any, ...], constants: dict[str, Any]) -> Any:
    """Compile the kernel of a launch, specialised for its arguments as Triton does."""
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
    """Return the resource usage of a kernel, in lower case: "reg 40 stack 0 ..."."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [tool, "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return usage.lower().replace(":", " ")
