"""Defocus blur of a wide aperture, as a camera and its dual-pixel sensor record it.

A point out of focus is spread over a disc whose signed radius, the circle of confusion, depends on
the point's depth: zero in the plane of focus, negative in front of it, positive behind it. Each
half of a dual pixel sees one half of the aperture, so that the left and the right view have
mirrored half discs, which change sides with the sign; their average is the full disc (Abuolaim and
Brown, "Defocus deblurring using dual-pixel data", ECCV 2020; Punnappurath et al., "Modeling
defocus-disparity in dual-pixel sensors", ICCP 2020). Depth changes slowly here: nothing occludes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from basicsr.data.degradations.linear_light import from_linear, to_linear

_SUBPIXELS = 9  # per pixel and axis, for the anti-aliased edge of a disc
_SPACING = 0.125  # between the radii that are convolved, relative to the radius
_SMALLEST_SPACING = 0.5  # pixels


class DefocusViews(NamedTuple):
    """The image of the whole aperture and the two dual-pixel views, all of one shape and type."""

    centre: np.ndarray
    left: np.ndarray
    right: np.ndarray


def disc_kernel(radius: float) -> np.ndarray:
    """Return the k x k float32 kernel of a disc, odd k, sum 1: each pixel's covered area."""
    return _disc(radius)[0]


def half_disc_kernels(radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the kernels of the left and the right half of a disc, each of sum 1.

    The pixels that the dividing line crosses are shared; the average of both is the disc.
    """
    return _disc(radius)[1:]


def draw_defocus_map(
    height: int, width: int, max_radius: float, scale: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw a smooth map of the signed blur radius.

    A random cubic B-spline surface, clipped so that parts of it lie at the largest radius, as
    distant backgrounds do.

    Args:
        height: rows of the map.
        width: columns of the map.
        max_radius: largest absolute radius in pixels.
        scale: distance of the spline's knots in pixels, over which depth changes.
        rng: source of all random numbers.

    Returns:
        H x W float32 array in [-max_radius, max_radius].
    """
    rows = _spline_weights(height, scale, rng.random())
    columns = _spline_weights(width, scale, rng.random())
    knots = rng.uniform(-1.5, 1.5, (rows.shape[1], columns.shape[1]))
    surface = rows @ knots @ columns.T
    return np.clip(surface * max_radius, -max_radius, max_radius).astype(np.float32)


def render_defocus(image: np.ndarray, radius: np.ndarray) -> DefocusViews:
    """Blur an image in linear light by discs of signed radii.

    The image is convolved with the discs of a ladder of radii; between two rungs the results are
    interpolated linearly. Borders are reflected.

    Args:
        image: H x W x C sRGB, uint8, uint16 or float32 in [0, 1]; the views have the same type.
        radius: H x W signed radii in pixels.
    """
    light = to_linear(image)
    left, right = np.zeros_like(light), np.zeros_like(light)
    in_front = (radius < 0)[..., None]
    for rung, weight in _ladder(np.abs(radius)):
        views = _convolved_views(light, rung)
        left += weight * np.where(in_front, views[1], views[0])
        right += weight * np.where(in_front, views[0], views[1])
    centre = (left + right) / 2
    return DefocusViews(*(from_linear(view, image.dtype) for view in (centre, left, right)))


def _ladder(radius: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the rungs near any of the radii, and H x W x 1 weights that add up to one."""
    rungs = [0.0]
    while rungs[-1] < radius.max():
        rungs.append(rungs[-1] + max(_SMALLEST_SPACING, _SPACING * rungs[-1]))
    place = np.interp(radius, rungs, np.arange(len(rungs))).astype(np.float32)[..., None]
    for number, rung in enumerate(rungs):
        weight = np.maximum(1 - np.abs(place - number), 0)
        if weight.any():
            yield rung, weight


def _convolved_views(light: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the left and the right view at one radius."""
    if radius <= 0.5:  # the disc lies within its pixel
        return light, light
    import cv2  # here, so that importing the library does not load OpenCV

    def convolve(kernel: np.ndarray) -> np.ndarray:
        # filter2D correlates: the flipped kernel makes it a convolution
        view = cv2.filter2D(light, -1, cv2.flip(kernel, -1), borderType=cv2.BORDER_REFLECT_101)
        return view.reshape(light.shape)

    left, right = half_disc_kernels(radius)
    return convolve(left), convolve(right)


@lru_cache(maxsize=256)
def _disc(radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the kernels of a disc and of its left and right half, not to be written to."""
    reach = max(0, math.ceil(radius - 0.5))
    side = 2 * reach + 1
    place = (np.arange(side * _SUBPIXELS) + 0.5) / _SUBPIXELS - side / 2
    inside = place[:, None] ** 2 + place**2 <= max(radius, 0.5) ** 2
    area = inside.reshape(side, _SUBPIXELS, side, _SUBPIXELS).mean(axis=(1, 3))
    share = np.clip(0.5 - np.arange(-reach, reach + 1), 0, 1)  # of each column in the left half
    disc = area / area.sum()
    kernels = [kernel.astype(np.float32) for kernel in (disc, 2 * disc * share)]
    kernels.append(np.ascontiguousarray(kernels[1][:, ::-1]))
    for kernel in kernels:
        kernel.flags.writeable = False
    return kernels[0], kernels[1], kernels[2]


def _spline_weights(size: int, scale: float, phase: float) -> np.ndarray:
    """Return size x knots weights of a uniform cubic B-spline; every row adds up to one."""
    position = np.arange(size) / scale + phase
    knots = np.arange(-1, math.floor(position[-1]) + 3)
    distance = np.abs(position[:, None] - knots)
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.maximum(2 - distance, 0) ** 3 / 6
    return np.where(distance < 1, near, far)
