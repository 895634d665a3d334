"""The measuring protocols of the deraining literature.

Their numbers differ by up to 1.3 dB on the same images, so a score without its protocol's name
says little, and scores of different protocols do not belong in one comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from basicsr.metrics.ssim import WINDOW, ssim, zero_padded_ssim
from basicsr.utils.errors import DataError, OptionsError
from basicsr.utils.registry import suggest

_LUMA = np.array([65481.0, 128553.0, 24966.0])
_STRIP = 32  # rows at a time, so that their float64 copies stay in the processor's cache


class Scores(NamedTuple):
    """PSNR in dB (infinite for identical images) and SSIM (1 for identical images)."""

    psnr: float
    ssim: float


class Protocol(NamedTuple):
    """What a protocol does in one sentence, the smallest side it is defined for, and the doing."""

    description: str
    smallest_side: int
    compare: Callable[[np.ndarray, np.ndarray], Scores]


def measure(restored: np.ndarray, target: np.ndarray, protocol: str = "matlab_y") -> Scores:
    """PSNR and SSIM of `restored` against `target` under the named protocol, in float64.

    Both images are H x W x 3 RGB, or gray as H x W or H x W x 1 (no colour conversion then), uint8
    or float in [0, 1]. Floats beyond [0, 1] are clamped. `matlab_y`, `matlab_y_double` and `rgb`
    are defined on 8-bit files, so floats are rounded to 8 bits first; `dtpnet` does not round.

    Raises OptionsError for an unknown protocol and DataError for images that differ in size, are
    too small for the protocol, or hold something else than uint8 or finite floats.
    """
    if protocol not in PROTOCOLS:
        raise OptionsError(
            f"no protocol is called '{protocol}'{suggest(protocol, PROTOCOLS)}; "
            f"known: {', '.join(PROTOCOLS)}"
        )
    restored, target = _channels_last(restored, "restored"), _channels_last(target, "target")
    if restored.shape != target.shape:
        raise DataError(
            f"restored image is {_size(restored)}, target is {_size(target)}: "
            "only images of one size can be compared"
        )
    chosen = PROTOCOLS[protocol]
    if min(target.shape[:2]) < chosen.smallest_side:
        side = chosen.smallest_side
        raise DataError(
            f"protocol '{protocol}' is undefined for an image of {_size(target)}: "
            f"it needs at least {side} x {side} pixels"
        )
    return chosen.compare(restored, target)


def _channels_last(image: np.ndarray, role: str) -> np.ndarray:
    """The image as H x W x C with C 1 or 3, once it is known to be one."""
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3):
        raise DataError(
            f"{role} image has the shape {image.shape}; give H x W, H x W x 1 or H x W x 3"
        )
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise DataError(f"{role} image holds {image.dtype}; give uint8, or float in [0, 1]")
    if image.dtype != np.uint8 and not np.isfinite(image).all():
        raise DataError(f"{role} image holds values that are not finite")
    return image


def _size(image: np.ndarray) -> str:
    height, width, channels = image.shape
    return f"{width} x {height} ({'RGB' if channels == 3 else 'gray'})"


def _as_8_bits(image: np.ndarray) -> np.ndarray:
    """The values an 8-bit file holds, 0 to 255, in uint8 or float64; halves are rounded up."""
    if image.dtype == np.uint8:
        return image
    return np.floor(_as_unit(image) * 255 + 0.5)


def _as_unit(image: np.ndarray) -> np.ndarray:
    """The values in [0, 1], in float64."""
    if image.dtype == np.uint8:
        return image / 255.0
    return np.clip(image.astype(np.float64), 0.0, 1.0)


def _luma(image: np.ndarray) -> np.ndarray:
    """H x W float64: Y of MATLAB's rgb2ycbcr for RGB in 0 to 255 (so 16 to 235); of gray, itself.

    The products are integers below 2**53, hence exact, and so is the tie at a half.
    """
    if image.shape[2] == 1:
        return image[:, :, 0].astype(np.float64)
    luma = np.empty(image.shape[:2])
    for top in range(0, len(image), _STRIP):
        luma[top : top + _STRIP] = image[top : top + _STRIP] @ _LUMA
    luma /= 255000.0
    luma += 16.0
    return luma


def _psnr(a: np.ndarray, b: np.ndarray, peak: float) -> float:
    difference = (a - b).ravel()
    mean_square = float(difference @ difference) / difference.size
    return 10 * math.log10(peak**2 / mean_square) if mean_square else math.inf


def _matlab_y(restored: np.ndarray, target: np.ndarray) -> Scores:
    a, b = (np.floor(_luma(_as_8_bits(image)) + 0.5) for image in (restored, target))
    return Scores(_psnr(a, b, 255), ssim(a, b, 255))


def _matlab_y_double(restored: np.ndarray, target: np.ndarray) -> Scores:
    a, b = (_luma(_as_8_bits(image)) for image in (restored, target))
    return Scores(_psnr(a, b, 255), ssim(_downsampled(a), _downsampled(b), 255))


def _downsampled(image: np.ndarray) -> np.ndarray:
    """H x W -> H / f x W / f by a box filter, as Wang's ssim.m of 2009 does for large images.

    For an even f, MATLAB's imfilter centres the box on the pixel before its middle.
    """
    import cv2  # here, so that importing the library does not load OpenCV

    factor = max(1, math.floor(min(image.shape) / 256 + 0.5))
    centre = ((factor - 1) // 2,) * 2
    filtered = cv2.blur(image, (factor, factor), anchor=centre, borderType=cv2.BORDER_REFLECT)
    return filtered[::factor, ::factor]


def _rgb(restored: np.ndarray, target: np.ndarray) -> Scores:
    a, b = (_as_8_bits(image).astype(np.float64) for image in (restored, target))
    channels = [ssim(a[:, :, c], b[:, :, c], 255) for c in range(a.shape[2])]
    return Scores(_psnr(a, b, 255), float(np.mean(channels)))


def _dtpnet(restored: np.ndarray, target: np.ndarray) -> Scores:
    height, width = (side // 32 * 32 for side in target.shape[:2])
    a, b = (_as_unit(image[:height, :width]) for image in (restored, target))
    return Scores(_psnr(a, b, 1), zero_padded_ssim(a, b))


PROTOCOLS: dict[str, Protocol] = {
    "matlab_y": Protocol(
        "Y of MATLAB's rgb2ycbcr rounded to 8 bits; SSIM where its window fits "
        "(Restormer, MPRNet; Rain200L/H and SPA-Data in NeRD-Rain)",
        WINDOW,
        _matlab_y,
    ),
    "matlab_y_double": Protocol(
        "Y of MATLAB's rgb2ycbcr not rounded; SSIM after downsampling images of 384 pixels or more "
        "(PReNet; DID-Data and DDN in NeRD-Rain)",
        WINDOW,
        _matlab_y_double,
    ),
    "rgb": Protocol(
        "8-bit RGB, one mean square error over the channels; SSIM as matlab_y, mean over channels "
        "(denoising tables)",
        WINDOW,
        _rgb,
    ),
    "dtpnet": Protocol(
        "RGB in [0, 1] not rounded, cropped at the right and bottom to multiples of 32; "
        "SSIM with zero padding, mean over channels (the DTPNet tables)",
        32,
        _dtpnet,
    ),
}
