"""Gates of recurrent units, and the state of a convolutional LSTM."""

from __future__ import annotations

import torch
from torch import Tensor


def lstm_update(gates: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the new h and c: c = sigmoid(f) c + sigmoid(i) tanh(g), h = sigmoid(o) tanh(c).

    Args:
        gates: N x 4C x H x W: i, f, o and g.
        c: the last c, N x C x H x W, or None for zeros.
    """
    i, f, o, g = split_channels(gates, 4)
    i, g = i.sigmoid(), g.tanh()
    c = i * g if c is None else torch.addcmul(i * g, f.sigmoid(), c)
    return o.sigmoid() * c.tanh(), c


def split_channels(x: Tensor, count: int) -> tuple[Tensor, ...]:
    """Split the channels of `x` into `count` equal parts, on a CPU each contiguous.

    There, operations on short rows with gaps between them are several times slower.
    """
    chunks = x.chunk(count, dim=1)
    if x.is_cuda:
        return chunks
    return tuple(part.contiguous(memory_format=torch.channels_last) for part in chunks)
