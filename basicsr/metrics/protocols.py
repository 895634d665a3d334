"""Protocols of the deraining literature, of RGB denoising tables, and without ground truth.

Their numbers differ by up to 1.3 dB on the same images: scores of different protocols do not
compare.
"""

from __future__ import annotations

import numpy as np

from basicsr.metrics.base import PROTOCOL_REGISTRY, Protocol, SingleMetric
from basicsr.metrics.full_reference import PSNR, SSIM, WINDOW
from basicsr.metrics.niqe import BLOCK, NIQE

_LUMA = np.array([65481.0, 128553.0, 24966.0])
_STRIP = 32  # rows at a time, so that their float64 copies stay in the processor's cache


@PROTOCOL_REGISTRY.register
class MatlabY(Protocol):
    """8-bit luma, as MATLAB's rgb2ycbcr gives it for uint8 images."""

    name = "matlab_y"
    description = (
        "Y of MATLAB's rgb2ycbcr rounded to 8 bits; SSIM where its window fits "
        "(Restormer, MPRNet; Rain200L/H and SPA-Data in NeRD-Rain)"
    )
    metrics = (PSNR(), SSIM())
    smallest_side = WINDOW

    def convert(self, image: np.ndarray) -> np.ndarray:
        return np.floor(luma(image) + 0.5)


@PROTOCOL_REGISTRY.register
class MatlabYDouble(Protocol):
    """Unrounded luma, as MATLAB's rgb2ycbcr gives it for double images."""

    name = "matlab_y_double"
    description = (
        "Y of MATLAB's rgb2ycbcr not rounded; SSIM after downsampling images of 384 pixels or more "
        "(PReNet; DID-Data and DDN in NeRD-Rain)"
    )
    metrics = (PSNR(), SSIM(downsample=True))
    smallest_side = WINDOW

    def convert(self, image: np.ndarray) -> np.ndarray:
        return luma(image)


@PROTOCOL_REGISTRY.register
class RGB(Protocol):
    """8-bit RGB."""

    name = "rgb"
    description = (
        "8-bit RGB, one mean square error over the channels; SSIM as matlab_y, mean over channels "
        "(denoising tables)"
    )
    metrics = (PSNR(), SSIM())
    smallest_side = WINDOW

    def convert(self, image: np.ndarray) -> np.ndarray:
        return image.astype(np.float64)


@PROTOCOL_REGISTRY.register
class DTPNetRGB(Protocol):
    """The unrounded output of the network, as the code of DTPNet measures it."""

    name = "dtpnet"
    description = (
        "RGB in [0, 1] not rounded, cropped at the right and bottom to multiples of 32; "
        "SSIM with zero padding, mean over channels (the DTPNet tables)"
    )
    metrics = (PSNR(), SSIM(border="zeros"))
    smallest_side = 32
    reads = "float"

    def convert(self, image: np.ndarray) -> np.ndarray:
        height, width = (side // 32 * 32 for side in image.shape[:2])
        return image[:height, :width]


@PROTOCOL_REGISTRY.register
class NIQEAlone(SingleMetric):
    """NIQE, for images without ground truth."""

    name = "niqe"

    def __init__(self) -> None:
        super().__init__(
            NIQE(),
            self.name,
            "NIQE of 8-bit gray levels with the authors' parameters, no ground truth needed; "
            "lower is better",
            smallest_side=2 * BLOCK,  # the covariance needs more than one block
        )


def luma(image: np.ndarray) -> np.ndarray:
    """Return the luma of 8-bit RGB levels, H x W float64 in 16 to 235; a gray image as it is.

    Y of MATLAB's rgb2ycbcr. The products are integers below 2**53, hence exact, and so is the tie
    at a half.
    """
    if image.shape[2] == 1:
        return image[:, :, 0].astype(np.float64)
    values = np.empty(image.shape[:2])
    for top in range(0, len(image), _STRIP):
        values[top : top + _STRIP] = image[top : top + _STRIP] @ _LUMA
    values /= 255000.0
    values += 16.0
    return values
