"""A loss on spectra."""

from __future__ import annotations

import torch
from torch import Tensor

from basicsr.losses.restoration_loss import RestorationLoss
from basicsr.utils.registry import LOSS_REGISTRY


@LOSS_REGISTRY.register
class FFTLoss(RestorationLoss):
    """Mean absolute difference of the real and imaginary parts of the images' 2-D spectra.

    The transform is not normalised, as in MIMO-UNet (Cho et al. 2021, eq. 5), which weights this
    loss by 0.1. It is linear, so that of the difference is taken.
    """

    def compare(self, restored: Tensor, target: Tensor) -> Tensor:
        spectrum = torch.fft.fft2(restored - target)
        return torch.view_as_real(spectrum).abs().mean()
