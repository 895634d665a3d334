"""Convolutional recurrent units of PReNet (Ren et al., CVPR 2019).

Their gates are 3x3 convolutions of the input x and the hidden state h (N x C x H x W). Gates with
the same input are one convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from basicsr.archs.conv3x3 import Conv3x3
from basicsr.archs.ops import conv3x3, lstm_update, split_channels, uses_c_lstm


class ConvLSTMCell(nn.Module):
    """i, f, o = sigmoid(conv([x, h])), g = tanh(conv([x, h])), c = f c + i g, h = o tanh(c)."""

    gate_names = ("i", "f", "o", "g")

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = Conv3x3(2 * channels, 4 * channels)

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the new h and the new state (h, c). A state of None is all zeros."""
        last_h, last_c = state or (None, None)
        inputs = (x,) if last_h is None else (x, last_h)
        # Without a state, the convolution of zeros is left out.
        weight, bias = self.gates.weight[:, : len(inputs) * x.shape[1]], self.gates.bias
        if uses_c_lstm(x):
            from basicsr.archs.ops import lstm_c

            h, c = lstm_c.lstm(x, last_h, last_c, weight, bias)
        else:
            h, c = lstm_update(conv3x3(torch.cat(inputs, dim=1), weight, bias), last_c)
        return h, (h, c)


class ConvGRUCell(nn.Module):
    """z, b = sigmoid(conv([x, h])), g = tanh(conv([b h, x])), h = (1 - z) h + z g."""

    gate_names = ("z", "b")

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = Conv3x3(2 * channels, 2 * channels)
        self.candidate = Conv3x3(2 * channels, channels)

    def forward(self, x: Tensor, state: tuple[Tensor] | None) -> tuple[Tensor, tuple[Tensor]]:
        """Return the new h and the new state (h,). A state of None is all zeros."""
        h = torch.zeros_like(x) if state is None else state[0]
        z, b = split_channels(self.gates(torch.cat([x, h], dim=1)).sigmoid(), 2)
        g = self.candidate(torch.cat([b * h, x], dim=1)).tanh()
        h = torch.lerp(h, g, z)
        return h, (h,)
