"""Triton kernels, with gradients, of the operations in `ops.py`, whose functions document them.

Each is an operator of `torch.library`, which torch.compile takes as it is. Kernels read and write
channels-last tensors (others are copied first) and compute in float32. What the backward pass needs
of the forward pass is computed again from its inputs, not kept.

A gradient that is itself to be differentiated is the eager twin's: the kernels of the backward pass
have no gradients of their own.
"""

from basicsr.archs.triton_ops.dwconv import dwconv, gated_dwconv
from basicsr.archs.triton_ops.gram import gram_sums
from basicsr.archs.triton_ops.norm import channel_norm

__all__ = ["channel_norm", "dwconv", "gated_dwconv", "gram_sums"]
