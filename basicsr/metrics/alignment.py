"""Alignment of a restored image with a ground truth that another camera took.

RealBlur (Rim et al., *Real-world blur dataset for learning and benchmarking deblurring algorithms*,
ECCV 2020) measures results after correcting their intensity and a homography.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LARGEST_SHIFT = 0.1
"""Largest plausible shift of an image corner, relative to the diagonal."""

_ITERATIONS = 100
_SMOOTHING = 5  # side in pixels of the Gaussian filter before the alignment


class Aligned(NamedTuple):
    """Restored image after the alignment.

    Attributes:
        image: H x W x C float32, 0 where the restored image does not reach.
        mask: H x W, whether the restored image reaches the pixel.
        homography: 3 x 3, from pixels (column, row, 1) of the ground truth to those of the restored
            image; None if the alignment failed, and the image has the corrected intensity only.
    """

    image: np.ndarray
    mask: np.ndarray
    homography: np.ndarray | None


def align(restored: np.ndarray, target: np.ndarray) -> Aligned:
    """Align a restored image with the ground truth, in intensity and in position.

    The homography maximizes the enhanced correlation coefficient (Evangelidis and Psarakis, TPAMI
    2008) of gray levels, as OpenCV computes it: the result depends on OpenCV's version (4.2 and
    4.10 agree within 0.0007 dB, 5.0 is up to 0.005 dB away).

    Args:
        restored: H x W x C float32 in [0, 1], C is 1 or 3.
        target: the ground truth, of the same shape.
    """
    import cv2  # here, so that importing the library does not load OpenCV

    height, width = target.shape[:2]
    scaled = restored * intensity_scale(restored, target)
    homography = find_homography(scaled, target)
    if homography is None:
        return Aligned(scaled, np.ones((height, width), bool), None)
    image = cv2.warpPerspective(
        scaled,
        homography,
        (width, height),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    mask = cv2.warpPerspective(
        np.ones((height, width), np.float32),
        homography,
        (width, height),
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
    ).astype(bool)
    return Aligned(image.reshape(target.shape) * mask[:, :, None], mask, homography)


def intensity_scale(restored: np.ndarray, target: np.ndarray) -> np.float32:
    """Return the factor that brings `restored` closest to `target` in mean square error.

    It is 1 if either is black.
    """
    product, square = (restored * target).sum(), (restored * restored).sum()
    return product / square if product > 0 else np.float32(1)


def find_homography(restored: np.ndarray, target: np.ndarray) -> np.ndarray | None:
    """Return the homography from `target` to `restored`; None if there is no plausible one.

    OpenCV reports an error for images without correlation; for others, such as mirrored ones, it
    returns a homography that moves the corners far away.
    """
    import cv2

    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _ITERATIONS, 0)
    start = np.eye(3, dtype=np.float32)
    try:
        _, homography = cv2.findTransformECC(  # type: ignore[call-overload]  # mask may be None
            *(_gray(target), _gray(restored), start),
            *(cv2.MOTION_HOMOGRAPHY, stop, None, _SMOOTHING),
        )
    except cv2.error:
        return None
    return homography if is_plausible(homography, target.shape[:2]) else None


def is_plausible(homography: np.ndarray, size: tuple[int, ...]) -> bool:
    """Return whether no corner of an image of `size` (H, W) moves further than `LARGEST_SHIFT`."""
    height, width = size
    right, bottom = width - 1, height - 1
    corners = np.array([[0, 0, 1], [right, 0, 1], [0, bottom, 1], [right, bottom, 1]], np.float64)
    moved = corners @ homography.astype(np.float64).T
    if not (np.isfinite(moved).all() and (moved[:, 2] > 0).all()):
        return False
    shifts = moved[:, :2] / moved[:, 2:] - corners[:, :2]
    return bool(np.hypot(*shifts.T).max() <= LARGEST_SHIFT * np.hypot(height, width))


def _gray(image: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.shape[2] == 3 else image[:, :, 0]
