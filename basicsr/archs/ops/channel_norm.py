"""Layer normalisation over the channels of every pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def channel_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float = 1e-5) -> Tensor:
    """Normalise each pixel's C channels; the result has the shape, type and format of `x`.

    It is (x - mean) / sqrt(variance + eps) * weight + bias. Without `bias` it is
    x / sqrt(variance + eps) * weight, with the same variance, but `x` is not centred.

    Args:
        x: N x C x H x W.
        weight: C numbers, in whose type everything is computed, but in float32 at least.
        bias: C numbers, or None.
        eps: is added to the variance.
    """
    precise = torch.promote_types(weight.dtype, torch.float32)
    weight, bias = weight.to(precise), None if bias is None else bias.to(precise)
    pixels = x.permute(0, 2, 3, 1).to(precise)
    if bias is None:
        # On a CPU, Tensor.var over few channels takes several times as long as these two means.
        centred = pixels - pixels.mean(dim=-1, keepdim=True)
        variance = centred.square().mean(dim=-1, keepdim=True)
        pixels = pixels * (torch.rsqrt(variance + eps) * weight)
    else:
        pixels = F.layer_norm(pixels, weight.shape, weight, bias, eps)
    return pixels.permute(0, 3, 1, 2).to(x.dtype)
