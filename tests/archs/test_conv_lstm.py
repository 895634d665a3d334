"""The recurrent units against their formulas, gate by gate."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from basicsr.archs.conv_lstm import ConvGRUCell, ConvLSTMCell

CHANNELS = 5


def _inputs(count: int) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, CHANNELS, 7, 6, dtype=torch.float64) for _ in range(count)]


def _gates(conv: torch.nn.Conv2d, concatenated: Tensor) -> list[Tensor]:
    """Return every gate before its nonlinearity, each from its own convolution."""
    pairs = zip(conv.weight.split(CHANNELS), conv.bias.split(CHANNELS), strict=True)
    return [F.conv2d(concatenated, weight, bias, padding=1) for weight, bias in pairs]


def test_lstm_is_the_formula_with_separate_gates():
    cell = ConvLSTMCell(CHANNELS).double()
    h = c = torch.zeros(2, CHANNELS, 7, 6, dtype=torch.float64)
    state = None
    for x in _inputs(3):
        i, f, o, g = _gates(cell.gates, torch.cat([x, h], dim=1))
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        out, state = cell(x, state)
        torch.testing.assert_close(out, h)
        torch.testing.assert_close(state[1], c)


def test_gru_is_the_formula_with_separate_gates():
    cell = ConvGRUCell(CHANNELS).double()
    h = torch.zeros(2, CHANNELS, 7, 6, dtype=torch.float64)
    state = None
    for x in _inputs(3):
        z, b = (gate.sigmoid() for gate in _gates(cell.gates, torch.cat([x, h], dim=1)))
        g = cell.candidate(torch.cat([b * h, x], dim=1)).tanh()
        h = (1 - z) * h + z * g
        out, state = cell(x, state)
        torch.testing.assert_close(out, h)
