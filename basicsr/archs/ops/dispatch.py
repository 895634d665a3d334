"""Choice of the implementation of each operation: Triton, C, or the definition in PyTorch.

- Triton: norms and Gram matrices on CUDA, if Triton can be imported. There are no kernels for
  float64, and none for depthwise convolutions: cuDNN's are faster.
- C: float32 and bfloat16 on a CPU with a C compiler, 3x3 convolutions in float32 only. Without
  gradients, whole passes of transformer blocks and, in bfloat16, steps of LSTMs
  (`transformer_block_c.py`, `lstm_c.py`).

Implementations are imported at their first use: Triton's take seconds, and the C version compiles.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import torch
from torch import Tensor
from torch._C._functorch import peek_interpreter_stack  # of torch.func
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

from basicsr.archs.ops.channel_norm import channel_norm as eager_channel_norm
from basicsr.archs.ops.conv3x3 import conv3x3 as eager_conv3x3
from basicsr.archs.ops.custom_op import C_TYPES
from basicsr.archs.ops.dwconv import split_dwconv as eager_split_dwconv
from basicsr.archs.ops.gated_dwconv import gated_dwconv as eager_gated_dwconv
from basicsr.archs.ops.gram import Gram
from basicsr.archs.ops.gram import gram_sums as eager_gram_sums
from basicsr.archs.ops.lstm import lstm_update as eager_lstm_update

HAS_TRITON = importlib.util.find_spec("triton") is not None
LARGE_ON_GPU = 2**23  # elements; on an H200, the kernels are slower in training steps of 2**20


def uses_triton(x: Tensor) -> bool:
    """Return whether Triton's kernels compute operations on `x`.

    With gradients, PyTorch calls them by way of its operators, which takes longer than a norm of a
    small batch. Without, CUDA graphs launch them.
    """
    if not (HAS_TRITON and x.is_cuda and x.dtype != torch.float64):
        return False
    return x.numel() >= LARGE_ON_GPU or not torch.is_grad_enabled()


def uses_c(x: Tensor) -> bool:
    """Return whether the C versions can compute operations on `x`."""
    if x.dtype not in C_TYPES or not _left_to_c(x):
        return False
    if torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") not in C_TYPES:
        return False
    from basicsr.archs.ops import dwconv_c

    return dwconv_c.AVAILABLE


def uses_c_passes(x: Tensor) -> bool:
    """Return whether C computes whole passes of a transformer block on `x`: without gradients.

    `x` has the type that it is computed in: float32, or bfloat16 under autocast.
    """
    if x.dtype != _type_without_gradients(x):
        return False
    from basicsr.archs.ops import transformer_block_c

    return transformer_block_c.AVAILABLE


def uses_c_lstm(x: Tensor) -> bool:
    """Return whether C computes a whole step of an LSTM on `x`: in bfloat16, without gradients."""
    if _type_without_gradients(x) != torch.bfloat16 or x.dtype not in C_TYPES:
        return False
    from basicsr.archs.ops import lstm_c

    return lstm_c.AVAILABLE


def _type_without_gradients(x: Tensor) -> torch.dtype | None:
    """Return the type in which C computes on `x`, or None if gradients or modes need PyTorch."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or not _left_to_c(x):
        return None
    if _get_current_dispatch_mode() is not None:
        return None
    if not torch.is_autocast_enabled("cpu"):
        return torch.float32
    autocast = torch.get_autocast_dtype("cpu")
    return autocast if autocast == torch.bfloat16 else None


def _left_to_c(x: Tensor) -> bool:
    """Return whether C may compute on `x`.

    Fake tensors, on which costs are counted, traces, which other programs read, `torch.func` and
    forward-mode derivatives are left to PyTorch's own operations.
    """
    if torch.jit.is_tracing() or _has_transforms():
        return False
    return x.device.type == "cpu" and type(x) is Tensor


def _has_transforms() -> bool:
    """Return whether `torch.func` or forward-mode derivatives are active."""
    if torch.compiler.is_compiling():
        return False
    return peek_interpreter_stack() is not None or forward_ad._current_level >= 0


def _in_float32(*tensors: Tensor) -> bool:
    """Return whether all are on a CPU, and a product of them is computed in float32."""
    kinds = {(each.device.type, each.dtype) for each in tensors}
    return kinds == {("cpu", torch.float32)} and not torch.is_autocast_enabled("cpu")


def channel_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float = 1e-5) -> Tensor:
    """Normalise each pixel's channels; see `channel_norm.py`."""
    if uses_triton(x):
        from basicsr.archs.ops import channel_norm_triton

        return channel_norm_triton.channel_norm(x, weight, bias, eps)
    if uses_c(x) and weight.dtype in C_TYPES:
        from basicsr.archs.ops import channel_norm_c

        if channel_norm_c.AVAILABLE:
            return channel_norm_c.channel_norm(x, weight, bias, eps)
    return eager_channel_norm(x, weight, bias, eps)


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the 3x3 convolution of `x`, of the same height and width; see `conv3x3.py`."""
    tensors = (x, weight) if bias is None else (x, weight, bias)
    if uses_c(x) and _in_float32(*tensors) and not torch.compiler.is_compiling():
        from basicsr.archs.ops import conv3x3_c

        if conv3x3_c.AVAILABLE and conv3x3_c.is_faster(x, weight):
            return conv3x3_c.conv3x3(x, weight, bias)
    return eager_conv3x3(x, weight, bias)


def split_dwconv(x: Tensor, weight: Tensor, bias: Tensor | None, parts: int) -> Sequence[Tensor]:
    """Return the parts of dwconv(x) along the channels; see `dwconv.py`."""
    if uses_c(x):
        from basicsr.archs.ops import dwconv_c

        return dwconv_c.split_dwconv(x, weight, bias, parts)
    return eager_split_dwconv(x, weight, bias, parts)


def gated_dwconv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return gelu(gate) * value for the halves of dwconv(x); see `gated_dwconv.py`."""
    if uses_c(x):
        from basicsr.archs.ops import gated_dwconv_c

        return gated_dwconv_c.gated_dwconv(x, weight, bias)
    return eager_gated_dwconv(x, weight, bias)


def gram_sums(q: Tensor, k: Tensor, heads: int) -> Gram:
    """Sum products and squares of channels over the pixels; see `gram.py`."""
    if uses_triton(q):
        from basicsr.archs.ops import gram_triton

        return gram_triton.gram_sums(q, k, heads)
    if uses_c(q):
        from basicsr.archs.ops import gram_c

        if gram_c.AVAILABLE:
            return gram_c.gram_sums(q, k, heads)
    return eager_gram_sums(q, k, heads)


def lstm_update(gates: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the new h and c of an LSTM from its gates; see `lstm.py`."""
    one_type = c is None or c.dtype == gates.dtype
    if uses_c(gates) and one_type and not torch.compiler.is_compiling():
        from basicsr.archs.ops import lstm_c

        if lstm_c.AVAILABLE:
            return lstm_c.lstm_update(gates, c)
    return eager_lstm_update(gates, c)
