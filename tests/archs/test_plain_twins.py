"""Values and gradients of the fast blocks and networks against their formulas, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from plain_blocks import PLAIN, plain_twin
from torch import Tensor, nn

from basicsr.archs import build_network
from basicsr.archs.transformer_blocks import TransformerBlock

SMALL = {"dim": 8, "num_blocks": (1, 2, 1, 1), "num_refinement_blocks": 1}
NETWORKS: dict[str, dict[str, Any]] = {
    "DTPNet": {"type": "DTPNet", **SMALL, "recurrent_iter": 2, "recurrent_channels": 6},
    "DTPNet without scale keeping": {"type": "DTPNet", **SMALL, "scale_keep": False},
    "DTPNet with image residual": {
        "type": "DTPNet",
        **SMALL,
        "recurrent_iter": 2,
        "recurrent_channels": 6,
        "image_residual": True,
    },
    "Restormer": {"type": "Restormer", **SMALL},
    "Restormer without biases": {"type": "Restormer", **SMALL, "LayerNorm_type": "BiasFree"},
    "Restormer with biases": {"type": "Restormer", **SMALL, "bias": True},
    "PReNet": {"type": "PReNet", "recurrent_iter": 2, "channels": 6},
    "PReNet_GRU": {"type": "PReNet_GRU", "recurrent_iter": 2, "channels": 6},
}


def assert_same(module: nn.Module, *inputs: Tensor, call: Callable[..., Any] | None = None) -> None:
    """Compare `module` with its plain copy: values, and gradients of inputs and parameters."""
    twin = plain_twin(module)
    assert type(twin) is PLAIN[type(module)]
    results = []
    for each in (module, twin):
        given = [x.clone().requires_grad_() for x in inputs]
        out = call(each, *given) if call else each(*given)
        stages = out if isinstance(out, list) else [out]
        sum((stage * torch.cos(stage)).sum() for stage in stages).backward()
        gradients = [x.grad for x in given] + [p.grad for p in each.parameters()]
        results.append([*stages, *gradients])
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize(("norm", "bias"), [("WithBias", True), ("BiasFree", False)])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_transformer_block(batch, heads, norm, bias, memory_format):
    torch.manual_seed(0)
    block = TransformerBlock(6, heads, 2.66, bias=bias, norm=norm).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(batch, 6, 5, 7, dtype=torch.float64)
    assert_same(block, x.contiguous(memory_format=memory_format))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("norm", ["WithBias", "BiasFree"])
def test_transformer_block_of_16_bits(dtype, norm):
    """The result is close to that of float32."""
    torch.manual_seed(0)
    block = TransformerBlock(16, 2, 2.66, norm=norm)
    x = torch.randn(2, 16, 5, 7)
    expected = plain_twin(block)(x)
    torch.testing.assert_close(block.to(dtype)(x.to(dtype)).float(), expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batch", [1, 8])
def test_network(name, batch):
    torch.manual_seed(0)
    net = build_network(NETWORKS[name]).double()
    x = torch.rand(batch, 3, 16, 24, dtype=torch.float64)
    assert_same(net, x, call=lambda net, x: net(x, all_stages=True))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("DTPNet", marks=pytest.mark.slow),
        pytest.param("Restormer", marks=pytest.mark.slow),
        "PReNet",
        "one block",
    ],
)
def test_networks_can_be_compiled_as_one_graph(name):
    torch.manual_seed(0)
    block = name == "one block"
    net = TransformerBlock(8, 2, 2.66) if block else build_network(NETWORKS[name])
    x = torch.rand(1, 8 if block else 3, 16, 16)
    compiled = torch.compile(net, fullgraph=True, dynamic=False, backend="aot_eager")
    expected = net(x)
    result = compiled(x)
    torch.testing.assert_close(result, expected)
    result.sum().backward()
    gradients = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    expected.sum().backward()
    for one, other in zip(gradients, net.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad, rtol=1e-3, atol=1e-4)
