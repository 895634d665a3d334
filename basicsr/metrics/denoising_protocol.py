"""Protocols of Gaussian denoising and of the SIDD benchmark."""

from __future__ import annotations

import numpy as np

from basicsr.metrics.base import PROTOCOL_REGISTRY, Protocol
from basicsr.metrics.full_reference import PSNR, VolumeSSIM


@PROTOCOL_REGISTRY.register
class Gaussian(Protocol):
    """8-bit RGB or gray, PSNR only; `GaussianNoiseDataset` adds the noise of published tests."""

    name = "gaussian"
    description = (
        "8-bit RGB or gray, one mean square error over all channels, no border cropped "
        "(Gaussian denoising in DnCNN, FFDNet, SwinIR, Restormer)"
    )
    metrics = (PSNR(),)

    def convert(self, image: np.ndarray) -> np.ndarray:
        return image.astype(np.float64)


@PROTOCOL_REGISTRY.register
class SIDD(Protocol):
    """The unrounded output of the network, as MATLAB's psnr and ssim measure it."""

    name = "sidd"
    description = (
        "RGB in [0, 1] not rounded, MATLAB's psnr and ssim, which takes the image as a volume "
        "(SIDD validation in Restormer, MPRNet, NAFNet: mean over 1280 blocks)"
    )
    metrics = (PSNR(), VolumeSSIM())
    reads = "float"
