"""Rain drawn onto clean photographs: layers of streaks over mist, blended as a camera does.

A falling drop is a line as long as the drop's way during the exposure, brighter than what is behind
it (Garg and Nayar, "Vision and Rain", IJCV 2007); rain too far away to be seen as single drops is a
mist that follows the scattering model I = J t + A (1 - t) (Narasimhan and Nayar, IJCV 2002).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np

Preset = Literal["light", "heavy", "mixed", "misty"]

_MIST_SCALE = 160  # pixels over which the mist's thickness changes
_REACH = (
    1.2  # half the width over which a streak's cross-section is sampled, in standard deviations
)
_SIGMA_PER_WIDTH = 1 / 2.355  # of a Gaussian, by its width at half its height


class Streaks(NamedTuple):
    """One layer of drops at about the same distance; single streaks scatter around these means.

    `density`: streaks that begin in 1000 pixels; `length`, `width`: pixels, the width at half the
    brightness; `angle`: degrees from the vertical, positive where rain falls to the right;
    `brightness`: added by the middle of a streak, 1 is white.
    """

    density: float
    length: float
    angle: float
    width: float
    brightness: float


class Rain(NamedTuple):
    """What falls in one picture.

    `mist`: mean optical thickness, 0 for clear air, t = exp(-thickness); `airlight`: A of the
    scattering model, 0 to 1. `blend`: `additive` adds light and clips, as a sensor and the public
    data sets do; `screen`, 1 - (1 - image)(1 - streaks), spares bright backgrounds.
    """

    layers: tuple[Streaks, ...]
    mist: float = 0.0
    airlight: float = 0.85
    blend: Literal["additive", "screen"] = "additive"


def render_rain(clean: np.ndarray, rain: Rain | Preset, rng: np.random.Generator) -> np.ndarray:
    """The H x W x 3 uint8 image with rain on it: an explicit `Rain`, or one drawn from a preset."""
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
    """The light that a layer adds: H x W float32, at least 0."""
    margin = 0.75 * layer.length + 2 * layer.width
    area = (height + 2 * margin) * (width + 2 * margin)
    count = rng.poisson(layer.density * area / 1000)

    middle_y = rng.uniform(-margin, height + margin, count)
    middle_x = rng.uniform(-margin, width + margin, count)
    length = layer.length * np.clip(rng.lognormal(0, 0.35, count), 0.3, 1.5)
    angle = np.radians(layer.angle + rng.normal(0, 1.5, count))
    sigma = layer.width * rng.uniform(0.6, 1.4, count) * _SIGMA_PER_WIDTH
    peak = layer.brightness * rng.uniform(0.2, 1.4, count)

    # every streak is a grid of points about a pixel apart: streaks x along x across
    along = np.linspace(-0.5, 0.5, int(1.2 * layer.length) + 2, dtype=np.float32)
    reach_in_pixels = 2 * _REACH * 1.4 * layer.width * _SIGMA_PER_WIDTH
    across = np.linspace(-_REACH, _REACH, int(reach_in_pixels) + 3, dtype=np.float32)
    y = _grid(middle_y, np.cos(angle) * length, along, -np.sin(angle) * sigma, across)
    x = _grid(middle_x, np.sin(angle) * length, along, np.cos(angle) * sigma, across)
    point_area = length / len(along) * sigma * (across[1] - across[0])
    profile = (1 - (2 * along) ** 2)[:, None] * np.exp(-(across**2) / 2)
    light = (peak * point_area).astype(np.float32)[:, None, None] * profile
    return _splat(height, width, y.ravel(), x.ravel(), light.ravel())


def _grid(
    middle: np.ndarray, run: np.ndarray, along: np.ndarray, drift: np.ndarray, across: np.ndarray
) -> np.ndarray:
    """One coordinate of all points of all streaks, float32."""
    middle, run, drift = (each.astype(np.float32)[:, None, None] for each in (middle, run, drift))
    return middle + run * along[:, None] + drift * across


def _splat(height: int, width: int, y: np.ndarray, x: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Points of light on a pixel grid, each shared by its four neighbours."""
    seen = (y > -1) & (y < height) & (x > -1) & (x < width)
    y, x, light = y[seen], x[seen], light[seen]
    top, left = np.floor(y), np.floor(x)
    down, right = y - top, x - left
    # a border of one pixel takes what falls outside
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
    """H x W values around 1, between 0.5 and 1.5, that change slowly."""
    rows, columns = height // _MIST_SCALE + 2, width // _MIST_SCALE + 2
    knots = rng.uniform(0.5, 1.5, (rows, columns))
    return _between_knots(height, rows) @ knots @ _between_knots(width, columns).T


def _between_knots(size: int, knots: int) -> np.ndarray:
    """size x knots weights of linear interpolation."""
    place = np.arange(size)[:, None] / _MIST_SCALE
    return np.clip(1 - np.abs(place - np.arange(knots)), 0, 1)


def _light(rng: np.random.Generator) -> Rain:
    """Like Rain100L: one direction, clear air."""
    angle = rng.uniform(-35, 35)
    strength = rng.uniform(0.5, 1.55)
    far = Streaks(2.5, rng.uniform(15, 30), angle, rng.uniform(1.0, 1.8), 0.16 * strength)
    near = Streaks(0.9, rng.uniform(35, 60), angle, rng.uniform(1.8, 3.0), 0.3 * strength)
    return Rain((far, near))


def _heavy(rng: np.random.Generator) -> Rain:
    """Like Rain100H: several directions over each other, and mist."""
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
    """From drizzle to downpour, for networks that are to see real rain."""
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
    """Rain of any strength far away: thin streaks in mist that hides the background."""
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
