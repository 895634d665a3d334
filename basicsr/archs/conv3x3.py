"""The convolution of most networks."""

from __future__ import annotations

from torch import Tensor, nn

from basicsr.archs import ops


class Conv3x3(nn.Conv2d):
    """3x3 convolution with zero padding, which keeps height and width.

    In float32 on a CPU, Winograd's algorithm computes it where that is faster.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv3x3(x, self.weight, self.bias)
