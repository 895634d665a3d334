"""Operations of the transformer blocks and recurrent units, apart from the modules.

All take N x C x H x W tensors of any floating type, fastest in `torch.channels_last`, and are
differentiable (by reverse mode). Statistics are computed in float32 at least, also under autocast.

Each operation has one name: `NAME.py` defines it in PyTorch, `NAME_triton.py` is its kernel for
GPUs and `NAME_c.py` its C version for CPUs, where there are such. `dispatch.py` chooses one of
them. `projections.py` combines operations into the convolutions of a transformer block.
"""

from basicsr.archs.ops.dispatch import (
    channel_norm,
    conv3x3,
    gated_dwconv,
    gram_sums,
    lstm_update,
    uses_c,
    uses_c_lstm,
    uses_c_passes,
    uses_triton,
)
from basicsr.archs.ops.dwconv import dwconv
from basicsr.archs.ops.gram import Gram, autocast_off, cosine_similarity, sum_grams
from basicsr.archs.ops.lstm import split_channels
from basicsr.archs.ops.projections import (
    gated_projection,
    hidden_projection,
    pointwise,
    projections,
)

__all__ = [
    "Gram",
    "autocast_off",
    "channel_norm",
    "conv3x3",
    "cosine_similarity",
    "dwconv",
    "gated_dwconv",
    "gated_projection",
    "gram_sums",
    "hidden_projection",
    "lstm_update",
    "pointwise",
    "projections",
    "split_channels",
    "sum_grams",
    "uses_c",
    "uses_c_lstm",
    "uses_c_passes",
    "uses_triton",
]
