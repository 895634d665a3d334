"""The step of an LSTM in C against the definition in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from basicsr.archs.conv_lstm import ConvLSTMCell
from basicsr.archs.ops import c_compiler, lstm_c

pytestmark = pytest.mark.skipif(not lstm_c.AVAILABLE, reason="there is no C compiler here")

State = tuple[Tensor, Tensor] | None


def error(value: Tensor, expected: Tensor) -> float:
    assert value.shape == expected.shape
    return ((value.double() - expected).norm() / expected.norm().clamp_min(1e-12)).item()


def check(shape: tuple[int, ...], has_state: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare both types with float64, and bfloat16's error with that of PyTorch."""
    torch.manual_seed(0)
    cell = ConvLSTMCell(shape[1])
    x, h, c = (3 * torch.randn(shape) for _ in range(3))
    rounded = [each.bfloat16() for each in (x, h, c)]

    @torch.no_grad()
    def step(x: Tensor, h: Tensor, c: Tensor, bf16: bool = False) -> State:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return cell(x, (h, c) if has_state else None)[1]

    results, rough = step(x, h, c), step(*rounded, bf16=True)
    with monkeypatch.context() as patched:
        patched.setattr(lstm_c, "AVAILABLE", False)
        rough_in_pytorch = step(*rounded, bf16=True)
    cell.double()
    expected = step(x.double(), h.double(), c.double())
    rough_expected = step(*(each.double() for each in rounded))
    for result, reference in zip(results, expected, strict=True):
        assert result.dtype == torch.float32
        assert error(result, reference) < 1e-6
    for each in zip(rough, rough_in_pytorch, rough_expected, strict=True):
        result, in_pytorch, reference = each
        assert result.dtype == torch.bfloat16
        assert error(result, reference) <= 1.1 * error(in_pytorch, reference)


@pytest.mark.parametrize(
    "shape",
    [(1, 16, 20, 33), (2, 7, 17, 200), (1, 32, 1, 1), (3, 24, 33, 2), (0, 8, 3, 3)],
    ids=str,
)
@pytest.mark.parametrize("has_state", [True, False])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_step_is_that_of_the_definition(shape, has_state, threads, monkeypatch):
    """Tiles are narrow and bands low, so that most images have several."""
    monkeypatch.setattr(lstm_c, "CACHE", 1)
    monkeypatch.setattr(lstm_c, "BAND", 8)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        check(shape, has_state, monkeypatch)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("options", ["-mno-amx-bf16", "-mno-avx512bf16", "-mno-avx512f"])
def test_other_processors(options, monkeypatch, tmp_path):
    monkeypatch.setenv("CC", f"cc {options}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library = c_compiler.compiled_library("lstm.c")
    if library is None:
        pytest.skip("the compiler does not have these options")
    monkeypatch.setattr(lstm_c, "_LIBRARY", library)
    check((2, 12, 9, 21), True, monkeypatch)


@torch.no_grad()
def test_images_of_another_type_than_autocast():
    cell, x = ConvLSTMCell(8), torch.randn(1, 8, 5, 6)
    expected = cell(x, None)[0]
    with torch.autocast("cpu", torch.bfloat16):
        h = cell(x, None)[0]
    assert h.dtype == torch.bfloat16
    torch.testing.assert_close(h.float(), expected, rtol=0.02, atol=0.02)
    with torch.autocast("cpu", torch.float16):
        assert cell(x, None)[0].dtype == torch.float16
