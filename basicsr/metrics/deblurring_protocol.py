"""Protocols of motion deblurring (GoPro, HIDE, RealBlur) and defocus deblurring (DPDD)."""

from __future__ import annotations

import numpy as np

from basicsr.metrics.alignment import LARGEST_SHIFT, align
from basicsr.metrics.base import PROTOCOL_REGISTRY, Protocol, Scores
from basicsr.metrics.full_reference import (
    MAE,
    PSNR,
    WINDOW,
    GaussianSSIM,
    UniformSSIM,
    VolumeSSIM,
)
from basicsr.metrics.iqa import LPIPS


@PROTOCOL_REGISTRY.register
class GoPro(Protocol):
    """8-bit RGB, as MATLAB's psnr and ssim measure it."""

    name = "gopro"
    description = (
        "8-bit RGB, MATLAB's psnr and ssim, which takes the image as a volume "
        "(GoPro and HIDE in Restormer, MPRNet, NAFNet)"
    )
    metrics = (PSNR(), VolumeSSIM())

    def convert(self, image: np.ndarray) -> np.ndarray:
        return image.astype(np.float64)


@PROTOCOL_REGISTRY.register
class RealBlur(Protocol):
    """8-bit RGB after the alignment with the ground truth, see `basicsr.metrics.alignment`."""

    name = "realblur"
    description = (
        "8-bit RGB, intensity scaled and aligned with the ground truth by a homography (ECC of "
        "OpenCV, whose version changes scores by up to 0.005 dB); PSNR and Gaussian SSIM where the "
        "aligned image reaches (RealBlur-J and RealBlur-R)"
    )
    metrics = (PSNR(), GaussianSSIM())
    flags = {  # noqa: RUF012
        "unaligned": "alignment failed (ECC did not converge, or moved a corner by more than "
        f"{LARGEST_SHIFT:.0%} of the diagonal); measured with the scaled intensity only"
    }
    smallest_side = WINDOW

    def convert(self, image: np.ndarray) -> np.ndarray:
        return image.astype(np.float32) / np.float32(255)

    def compare(self, restored: np.ndarray, target: np.ndarray | None) -> Scores:
        assert target is not None
        psnr, ssim = self.metrics
        aligned, mask, homography = align(restored, target)
        a, b = (image.astype(np.float64) for image in (aligned, target * mask[:, :, None]))
        return {
            psnr.name: psnr(a[mask], b[mask], 1),
            ssim.name: ssim(a, b, 1, mask),
            "unaligned": float(homography is None),
        }


@PROTOCOL_REGISTRY.register
class DPDD(Protocol):
    """The unrounded output of the network, as Restormer's scripts for DPDD measure it."""

    name = "dpdd"
    description = (
        "RGB in [0, 1] not rounded; PSNR (100 dB for identical images), SSIM of scikit-image's "
        "defaults, MAE, and LPIPS (AlexNet) if pyiqa and its weights are there (DPDD tables)"
    )
    metrics = (PSNR(of_identical=100), UniformSSIM(), MAE(), LPIPS())
    smallest_side = 7  # the window of SSIM
    reads = "float"
