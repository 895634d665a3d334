"""Synthetic rain on clean photographs: layers of streaks over mist, blended as a camera does.

A falling drop is a streak as long as the path of the drop during the exposure, and brighter than
its background (Garg and Nayar, "Vision and Rain", IJCV 2007). Distant rain, in which no single drop
is visible, is a mist that follows the scattering model I = J t + A (1 - t) (Narasimhan and Nayar,
"Vision and the Atmosphere", IJCV 2002).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np

Preset = Literal["light", "heavy", "mixed", "misty"]

_MIST_SCALE = 160  # pixels over which the thickness of the mist changes
_HALF_WIDTH = 1.2  # of the sampled cross-section of a streak, in standard deviations
_SIGMA_PER_WIDTH = 1 / 2.355  # standard deviation of a Gaussian by its full width at half maximum


class Streaks(NamedTuple):
    """Layer of streaks at about the same distance. Single streaks vary around these means.

    Args:
        density: streaks per 1000 pixels.
        length: in pixels.
        angle: degrees from the vertical, positive if rain falls to the right.
        width: full width at half the brightness, in pixels.
        brightness: light added by the middle of a streak, 1 is white.
    """

    density: float
    length: float
    angle: float
    width: float
    brightness: float


class Rain(NamedTuple):
    """Rain of one image.

    Args:
        layers: layers of streaks.
        mist: mean optical thickness of the mist, 0 for clear air; t = exp(-thickness).
        airlight: A of the scattering model, 0 to 1.
        blend: "additive" adds light and clips, as a sensor and the public data sets do; "screen",
            1 - (1 - image)(1 - streaks), changes bright backgrounds less.
    """

    layers: tuple[Streaks, ...]
    mist: float = 0.0
    airlight: float = 0.85
    blend: Literal["additive", "screen"] = "additive"


def render_rain(clean: np.ndarray, rain: Rain | Preset, rng: np.random.Generator) -> np.ndarray:
    """Return the H x W x C uint8 image with rain: a given `Rain`, or one sampled from a preset."""
    if isinstance(rain, str):
        rain = PRESETS[rain](rng)
    height, width = clean.shape[:2]
    image = clean.astype(np.float32) / 255
    if rain.mist > 0:
        thickness = rain.mist * _smooth_field(height, width, rng)
        transmission = np.exp(-thickness)[..., None]
        image = image * transmission + rain.airlight * (1 - transmission)
    streaks = np.zeros((height, width), np.float32)
    for layer in rain.layers:
        streaks += draw_streaks(height, width, layer, rng)
    streaks = np.clip(streaks, 0, 1)[..., None]
    image = image + streaks if rain.blend == "additive" else 1 - (1 - image) * (1 - streaks)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def draw_streaks(height: int, width: int, layer: Streaks, rng: np.random.Generator) -> np.ndarray:
    """Return the light that a layer adds: H x W float32, at least 0."""
    margin = 0.75 * layer.length + 2 * layer.width
    area = (height + 2 * margin) * (width + 2 * margin)
    count = rng.poisson(layer.density * area / 1000)

    middle_y = rng.uniform(-margin, height + margin, count)
    middle_x = rng.uniform(-margin, width + margin, count)
    length = layer.length * np.clip(rng.lognormal(0, 0.35, count), 0.3, 1.5)
    angle = np.radians(layer.angle + rng.normal(0, 1.5, count))
    sigma = layer.width * rng.uniform(0.6, 1.4, count) * _SIGMA_PER_WIDTH
    peak = layer.brightness * rng.uniform(0.2, 1.4, count)

    # every streak is a grid of points about one pixel apart: streaks x along x across
    along = np.linspace(-0.5, 0.5, int(1.2 * layer.length) + 2, dtype=np.float32)
    widest = 2 * _HALF_WIDTH * 1.4 * layer.width * _SIGMA_PER_WIDTH  # in pixels
    across = np.linspace(-_HALF_WIDTH, _HALF_WIDTH, int(widest) + 3, dtype=np.float32)
    y = _grid(middle_y, np.cos(angle) * length, along, -np.sin(angle) * sigma, across)
    x = _grid(middle_x, np.sin(angle) * length, along, np.cos(angle) * sigma, across)
    point_area = length / len(along) * sigma * (across[1] - across[0])
    profile = (1 - (2 * along) ** 2)[:, None] * np.exp(-(across**2) / 2)
    light = (peak * point_area).astype(np.float32)[:, None, None] * profile
    return _splat(height, width, y.ravel(), x.ravel(), light.ravel())


def _grid(
    middle: np.ndarray, run: np.ndarray, along: np.ndarray, drift: np.ndarray, across: np.ndarray
) -> np.ndarray:
    """Return one coordinate of all points of all streaks, float32."""
    middle, run, drift = (each.astype(np.float32)[:, None, None] for each in (middle, run, drift))
    return middle + run * along[:, None] + drift * across


def _splat(height: int, width: int, y: np.ndarray, x: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Distribute points of light bilinearly over their four neighbouring pixels."""
    visible = (y > -1) & (y < height) & (x > -1) & (x < width)
    y, x, light = y[visible], x[visible], light[visible]
    top, left = np.floor(y), np.floor(x)
    down, right = y - top, x - left
    # a border of one pixel receives the light that falls outside
    corner = (top.astype(np.int64) + 1) * (width + 2) + left.astype(np.int64) + 1
    canvas = np.zeros((height + 2) * (width + 2))
    for step, share in (
        (0, (1 - down) * (1 - right)),
        (1, (1 - down) * right),
        (width + 2, down * (1 - right)),
        (width + 3, down * right),
    ):
        canvas += np.bincount(corner + step, light * share, canvas.size)
    return canvas.reshape(height + 2, width + 2)[1:-1, 1:-1].astype(np.float32)


def _smooth_field(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return H x W slowly changing values between 0.5 and 1.5."""
    rows, columns = height // _MIST_SCALE + 2, width // _MIST_SCALE + 2
    knots = rng.uniform(0.5, 1.5, (rows, columns))
    return _between_knots(height, rows) @ knots @ _between_knots(width, columns).T


def _between_knots(size: int, knots: int) -> np.ndarray:
    """Return the size x knots weights of linear interpolation."""
    position = np.arange(size)[:, None] / _MIST_SCALE
    return np.clip(1 - np.abs(position - np.arange(knots)), 0, 1)


def _light(rng: np.random.Generator) -> Rain:
    """Sample rain like that of Rain100L: one direction, clear air."""
    angle = rng.uniform(-35, 35)
    strength = rng.uniform(0.5, 1.55)
    far = Streaks(2.5, rng.uniform(15, 30), angle, rng.uniform(1.0, 1.8), 0.16 * strength)
    near = Streaks(0.9, rng.uniform(35, 60), angle, rng.uniform(1.8, 3.0), 0.3 * strength)
    return Rain((far, near))


def _heavy(rng: np.random.Generator) -> Rain:
    """Sample rain like that of Rain100H: several directions, and mist."""
    wind = rng.uniform(-25, 25)
    layers = tuple(
        Streaks(
            rng.uniform(2.0, 4.0),
            rng.uniform(25, 60),
            wind + rng.uniform(-15, 15),
            rng.uniform(1.5, 3.0),
            rng.uniform(0.29, 0.57),
        )
        for _ in range(rng.integers(2, 5))
    )
    return Rain(layers, mist=rng.uniform(0, 0.15), airlight=rng.uniform(0.7, 0.95))


def _mixed(rng: np.random.Generator) -> Rain:
    """Sample rain from drizzle to downpour, to train networks for real rain."""
    wind = rng.uniform(-45, 45)
    strength = rng.uniform(0.1, 1)
    layers = tuple(
        Streaks(
            density=rng.uniform(0.5, 4.0) * strength,
            length=rng.uniform(10, 70),
            angle=wind + rng.uniform(-10, 10),
            width=rng.uniform(1, 4),
            brightness=rng.uniform(0.1, 0.5),
        )
        for _ in range(rng.integers(1, 5))
    )
    return Rain(
        layers,
        mist=rng.uniform(0, 0.5) * strength,
        airlight=rng.uniform(0.6, 1),
        blend="additive" if rng.random() < 0.5 else "screen",
    )


def _misty(rng: np.random.Generator) -> Rain:
    """Sample distant rain of any strength: thin streaks in mist that hides the background."""
    angle = rng.uniform(-35, 35)
    far = Streaks(
        rng.uniform(1, 5), rng.uniform(10, 30), angle, rng.uniform(1, 2), rng.uniform(0.1, 0.3)
    )
    near = Streaks(
        rng.uniform(0, 1.5), rng.uniform(30, 60), angle, rng.uniform(1.5, 3), rng.uniform(0.1, 0.35)
    )
    return Rain((far, near), mist=rng.uniform(0.2, 0.8), airlight=rng.uniform(0.7, 0.95))


PRESETS: Mapping[Preset, Callable[[np.random.Generator], Rain]] = {
    "light": _light,
    "heavy": _heavy,
    "mixed": _mixed,
    "misty": _misty,
}
