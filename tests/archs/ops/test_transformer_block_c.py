"""The passes of transformer blocks in C against the definition in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from basicsr.archs import ops
from basicsr.archs.ops import c_compiler, transformer_block_c
from basicsr.archs.transformer_blocks import TransformerBlock

pytestmark = pytest.mark.skipif(
    not transformer_block_c.AVAILABLE, reason="there is no C compiler here"
)

OTHER_PROCESSORS = {
    "AVX-512 without AMX": "cc -mno-amx-bf16",
    "AVX-512 without bfloat16": "cc -mno-avx512bf16",
    "AVX2": "cc -mno-avx512f",
}


def block_of(
    channels: int, heads: int, bias: bool = False, norm: str = "WithBias"
) -> TransformerBlock:
    torch.manual_seed(0)
    block = TransformerBlock(channels, heads, 2.66, bias, norm).eval()
    for parameter in block.parameters():
        if parameter.dim() == 1:  # norms and biases
            torch.nn.init.normal_(parameter)
    return block


def images(*shape: int) -> Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


def error(value: Tensor, expected: Tensor) -> float:
    assert value.shape == expected.shape
    return ((value.double() - expected).norm() / expected.norm().clamp_min(1e-12)).item()


@torch.no_grad()
def change_of(block: TransformerBlock, x: Tensor, bf16: bool = False) -> Tensor:
    """Return what the block adds to `x`."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return block(x).double() - x


def check(block: TransformerBlock, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare both types with the block in float64, and bfloat16's error with that of PyTorch."""
    called = []
    call = transformer_block_c._call
    with monkeypatch.context() as patched:
        patched.setattr(
            transformer_block_c, "_call", lambda *a, **k: called.append(a[0]) or call(*a, **k)
        )
        result, rough = change_of(block, x), change_of(block, x.bfloat16(), bf16=True)
    assert called == ["gram_sums", "add_values", "add_gates"] * 2
    with monkeypatch.context() as patched:
        patched.setattr(transformer_block_c, "AVAILABLE", False)
        rough_in_pytorch = change_of(block, x.bfloat16(), bf16=True)
    block.double()
    expected, rough_expected = change_of(block, x.double()), change_of(block, x.bfloat16().double())
    block.float()
    assert error(result, expected) < 3e-6
    assert error(rough, rough_expected) < max(1.1 * error(rough_in_pytorch, rough_expected), 0.005)


CASES = [
    ((1, 24, 20, 33), 1, {}),
    ((2, 48, 17, 31), 2, {}),
    ((1, 64, 1, 1), 1, {}),
    ((1, 96, 1, 7), 4, {}),
    ((3, 30, 40, 70), 5, {"bias": True, "norm": "BiasFree"}),  # heads of 6 channels
    ((1, 7, 5, 6), 7, {"bias": True}),
    ((1, 192, 9, 9), 8, {"norm": "BiasFree"}),
    ((0, 16, 3, 3), 1, {}),
]


@pytest.mark.parametrize(("shape", "heads", "options"), CASES, ids=str)
@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_are_those_of_the_definition(shape, heads, options, threads, monkeypatch):
    """Tiles are narrow and bands low, so that most images have several."""
    monkeypatch.setattr(transformer_block_c, "CACHE", 1)
    monkeypatch.setattr(transformer_block_c, "BAND", 8)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        check(block_of(shape[1], heads, **options), images(*shape), monkeypatch)
    finally:
        torch.set_num_threads(before)


def test_wide_images(monkeypatch):
    check(block_of(24, 1), images(1, 24, 3, 700), monkeypatch)


@pytest.mark.parametrize("processor", OTHER_PROCESSORS)
def test_other_processors(processor, monkeypatch, tmp_path):
    monkeypatch.setenv("CC", OTHER_PROCESSORS[processor])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library = c_compiler.compiled_library("transformer_block.c")
    if library is None:
        pytest.skip("the compiler does not have these options")
    monkeypatch.setattr(transformer_block_c, "_LIBRARY", library)
    monkeypatch.setattr(transformer_block_c, "LANES", transformer_block_c.lanes_of(library))
    for channels, heads in ((24, 1), (40, 5)):
        check(block_of(channels, heads), images(2, channels, 7, 21), monkeypatch)


@torch.no_grad()
def test_gelu_is_close_wherever_it_is_not_zero():
    """Gates that are constant: zero weights, and biases before the depthwise convolution."""
    gates = torch.linspace(-9, 40, 1024)
    x = images(1, 1, 3, 3)
    point = torch.zeros(2048, 1), torch.cat([gates, torch.ones(1024)])
    taps = torch.zeros(2048, 1, 3, 3)
    taps[:, :, 1, 1] = 1
    for gate in (0, 100, 187, 300, 1023):
        last = torch.zeros(1, 1024)
        last[0, gate] = 1
        arguments = (torch.ones(1), torch.zeros(1)), point, (taps, None), (last, None)
        expected = F.gelu(gates[gate].double())
        exact = transformer_block_c.add_gates(x * 0, *arguments)[0, 0, 0, 0].double()
        torch.testing.assert_close(exact, expected, rtol=1e-5, atol=1e-12)
        rough = transformer_block_c.add_gates(x.bfloat16() * 0, *arguments)[0, 0, 0, 0].double()
        torch.testing.assert_close(rough, expected, rtol=0.01, atol=2e-4)


@torch.no_grad()
def test_sums_over_some_rows_are_those_of_strips():
    block, x = block_of(24, 2), images(2, 24, 19, 10)
    whole = block._gram(x, slice(0, 19))
    parts = [block._gram(x[:, :, :8], slice(0, 7)), block._gram(x[:, :, 6:], slice(1, 13))]
    for sums, expected in zip(ops.sum_grams(parts), whole, strict=True):
        torch.testing.assert_close(sums, expected)


def test_gradients_other_types_and_watched_operations_are_left_to_pytorch():
    from torch.utils.flop_counter import FlopCounterMode

    x = images(1, 8, 4, 4)
    assert not ops.uses_c_passes(x)
    with torch.no_grad():
        assert ops.uses_c_passes(x)
        assert not ops.uses_c_passes(x.double())
        assert not ops.uses_c_passes(x.bfloat16())
        assert not ops.uses_c_passes(x.to("meta"))
        with FlopCounterMode(display=False):
            assert not ops.uses_c_passes(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert ops.uses_c_passes(x.bfloat16())
            assert not ops.uses_c_passes(x)
        with torch.autocast("cpu", torch.float16):
            assert not ops.uses_c_passes(x.half())


@torch.no_grad()
@pytest.mark.parametrize("shape", [(0, 8, 4, 4), (1, 8, 4, 0)])
def test_images_without_pixels(shape):
    assert block_of(8, 1)(images(*shape)).shape == shape


@torch.no_grad()
def test_missing_memory_is_an_error():
    x = torch.empty(0, 16, 1, 1).expand(0, 16, 1, 2**50)
    job = transformer_block_c._job(x, 16, 1, slice(0, 1))
    job.tiles, job.images = 1, 0
    parameters = {name: (torch.zeros(16, 16), None) for name in ("norm", "point", "depth", "last")}
    with pytest.raises(MemoryError, match="cannot allocate memory for"):
        transformer_block_c._call("add_values", job, x, **parameters)
