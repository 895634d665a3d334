"""Synthetic rain on clean photographs: layers of streaks over mist, blended as a camera does.

A falling drop is a streak as long as the path of the drop during the exposure, and brighter than
its background (Garg and Nayar, "Vision and Rain", IJCV 2007); out of focus it is spread over a
disc. Distant rain, in which no single drop is visible, is a mist that follows the scattering model
I = J t + A (1 - t) (Narasimhan and Nayar, "Vision and the Atmosphere", IJCV 2002).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np

from basicsr.data.degradations.defocus_blur import disc_kernel
from basicsr.data.degradations.linear_light import from_linear, to_linear

Preset = Literal["light", "heavy", "mixed", "misty", "real", "none"]

_MIST_SCALE = 160  # pixels over which the thickness of the mist changes
_HALF_WIDTH = 1.2  # of the sampled cross-section of a streak, in standard deviations
_LEAST_POINTS = 14  # along a streak, so that short ones are as bright as long ones
_COARSE_WIDTH = 6  # pixels; a streak of twice this width is drawn at half the resolution
_VEIL_ROWS = 320  # least height over which the veil gets thicker; patches see a part of it
_SIGMA_PER_WIDTH = 1 / 2.355  # standard deviation of a Gaussian by its full width at half maximum


class Streaks(NamedTuple):
    """Layer of streaks at about the same distance. Single streaks vary around these means.

    Args:
        density: streaks per 1000 pixels.
        length: in pixels.
        angle: degrees from the vertical, positive if rain falls to the right.
        width: full width at half the brightness, in pixels.
        brightness: light added by the middle of a streak, 1 is white.
        spread: standard deviation of the angles of single streaks, in degrees.
        defocus: radius of the disc over which a point is spread, in pixels.
        evenness: exponent of the brightness along a streak: 2 for a parabola, more for streaks
            that are evenly bright and end abruptly.
    """

    density: float
    length: float
    angle: float
    width: float
    brightness: float
    spread: float = 1.5
    defocus: float = 0.0
    evenness: float = 2.0


class Rain(NamedTuple):
    """Rain of one image.

    Args:
        layers: layers of streaks.
        mist: mean optical thickness of the mist, 0 for clear air; t = exp(-thickness).
        airlight: A of the scattering model, 0 to 1.
        blend: "additive" adds light and clips, as a sensor and the public data sets do; "screen",
            1 - (1 - image)(1 - streaks), changes bright backgrounds less; "linear" takes streaks
            as the opacity of drops as bright as the airlight, in linear light.
        veil: relative change of the mist's thickness from the top of the image to its bottom,
            between -1 and 1, as ground closer to the camera has less air in front of it.
        tint: colour of the airlight, relative to white; gray images have none.
    """

    layers: tuple[Streaks, ...]
    mist: float = 0.0
    airlight: float = 0.85
    blend: Literal["additive", "screen", "linear"] = "additive"
    veil: float = 0.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)


def render_rain(clean: np.ndarray, rain: Rain | Preset, rng: np.random.Generator) -> np.ndarray:
    """Return the H x W x C uint8 image with rain: a given `Rain`, or one sampled from a preset."""
    if isinstance(rain, str):
        rain = PRESETS[rain](rng)
    height, width, channels = clean.shape
    image = clean.astype(np.float32) / 255
    airlight = rain.airlight * np.array(rain.tint if channels == 3 else 1.0)
    if rain.mist > 0:
        thickness = rain.mist * _smooth_field(height, width, rng)
        if rain.veil:
            thickness *= _veil(height, rain.veil, rng)
        transmission = np.exp(-thickness)[..., None]
        image = image * transmission + airlight * (1 - transmission)
    streaks = np.zeros((height, width), np.float32)
    for layer in rain.layers:
        streaks += draw_streaks(height, width, layer, rng)
    streaks = np.clip(streaks, 0, 1)[..., None]
    if rain.blend == "linear":
        image = image.astype(np.float32)
        light = to_linear(image) * (1 - streaks) + to_linear(airlight) * streaks
        image = from_linear(light, np.float32)
    elif rain.blend == "screen":
        image = 1 - (1 - image) * (1 - streaks)
    else:
        image = image + streaks
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def draw_streaks(height: int, width: int, layer: Streaks, rng: np.random.Generator) -> np.ndarray:
    """Return the light that a layer adds: H x W float32, at least 0.

    Layers of wide or defocused streaks are smooth. They are drawn at a lower resolution.
    """
    reduction = int((layer.width + 2 * layer.defocus) / _COARSE_WIDTH)
    if reduction > 1:
        return _draw_coarse(height, width, layer, reduction, rng)
    if layer.defocus > 0.5:
        return _draw_defocused(height, width, layer, rng)
    return _draw_sharp(height, width, layer, rng)


def _draw_coarse(
    height: int, width: int, layer: Streaks, reduction: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw a layer at 1 / `reduction` of the resolution and enlarge it."""
    import cv2  # here, so that importing the library does not load OpenCV

    coarse = layer._replace(
        density=layer.density * reduction**2,
        length=layer.length / reduction,
        width=layer.width / reduction,
        defocus=layer.defocus / reduction,
    )
    rows, columns = (-(-side // reduction) + 2 for side in (height, width))
    light = draw_streaks(rows, columns, coarse, rng)
    size = columns * reduction, rows * reduction
    light = cv2.resize(light, size, interpolation=cv2.INTER_LINEAR)
    return light[reduction : reduction + height, reduction : reduction + width]


def _draw_defocused(
    height: int, width: int, layer: Streaks, rng: np.random.Generator
) -> np.ndarray:
    import cv2  # here, so that importing the library does not load OpenCV

    margin = int(layer.defocus) + 1
    light = _draw_sharp(height + 2 * margin, width + 2 * margin, layer, rng)
    light = cv2.filter2D(light, -1, disc_kernel(layer.defocus))
    return light[margin : margin + height, margin : margin + width]


def _draw_sharp(height: int, width: int, layer: Streaks, rng: np.random.Generator) -> np.ndarray:
    margin = 0.75 * layer.length + 2 * layer.width
    area = (height + 2 * margin) * (width + 2 * margin)
    count = rng.poisson(layer.density * area / 1000)

    middle_y = rng.uniform(-margin, height + margin, count)
    middle_x = rng.uniform(-margin, width + margin, count)
    length = layer.length * np.clip(rng.lognormal(0, 0.35, count), 0.3, 1.5)
    angle = np.radians(layer.angle + rng.normal(0, layer.spread, count))
    sigma = layer.width * rng.uniform(0.6, 1.4, count) * _SIGMA_PER_WIDTH
    peak = layer.brightness * rng.uniform(0.2, 1.4, count)

    # only streaks that reach into the image are drawn; of a patch, that is a small part of them
    reach_y = np.abs(np.cos(angle)) * length / 2 + _HALF_WIDTH * sigma + 1
    reach_x = np.abs(np.sin(angle)) * length / 2 + _HALF_WIDTH * sigma + 1
    near_y = (middle_y > -reach_y) & (middle_y < height + reach_y)
    near = near_y & (middle_x > -reach_x) & (middle_x < width + reach_x)
    middle_y, middle_x, length, angle, sigma, peak = (
        each[near] for each in (middle_y, middle_x, length, angle, sigma, peak)
    )

    # every streak is a grid of points about one pixel apart: streaks x along x across
    points = max(int(1.2 * layer.length) + 2, _LEAST_POINTS)
    along = np.linspace(-0.5, 0.5, points, dtype=np.float32)
    widest = 2 * _HALF_WIDTH * 1.4 * layer.width * _SIGMA_PER_WIDTH  # in pixels
    across = np.linspace(-_HALF_WIDTH, _HALF_WIDTH, int(widest) + 3, dtype=np.float32)
    y = _grid(middle_y, np.cos(angle) * length, along, -np.sin(angle) * sigma, across)
    x = _grid(middle_x, np.sin(angle) * length, along, np.cos(angle) * sigma, across)
    point_area = length / len(along) * sigma * (across[1] - across[0])
    profile = (1 - np.abs(2 * along) ** layer.evenness)[:, None] * np.exp(-(across**2) / 2)
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


def _veil(height: int, change: float, rng: np.random.Generator) -> np.ndarray:
    """Return H x 1 factors between 1 - change / 2 and 1 + change / 2 from top to bottom."""
    rows = max(height, _VEIL_ROWS)
    position = (np.arange(height) + rng.uniform(0, rows - height)) / rows
    return (1 + change * (position - 0.5))[:, None]


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


def _real(rng: np.random.Generator) -> Rain:
    """Sample rain as photographs of all resolutions show it, in depth and with splashes.

    Near layers are wide, sparse and often out of focus; far ones are thin and dense. Resolutions
    are such that streaks are from one to about 40 pixels wide and up to 500 long.
    """
    resolution = _log_uniform(rng, 0.6, 5)  # width of a streak in the plane of focus, in pixels
    wind = rng.normal(0, 15)
    strength = rng.uniform(0.1, 1)
    shape = _log_uniform(rng, 5, 50) if rng.random() < 0.8 else _log_uniform(rng, 2, 5)
    blend: Literal["additive", "screen", "linear"] = "linear" if rng.random() < 0.5 else "screen"
    # opacity in linear light, unlike added levels, shows most in front of dark backgrounds
    visibility = 0.5 if blend == "linear" else 1.0

    layers = []
    for _ in range(rng.integers(1, 5)):
        nearness = _log_uniform(rng, 0.4, 5)
        width = np.clip(resolution * nearness, 0.8, 40)
        # `shape` is length by width; short exposures make short streaks
        length = np.clip(width * shape * rng.uniform(0.6, 1.6), 2, 500)
        out_of_focus = rng.random() < 0.35
        defocus = width * rng.uniform(0.3, 1.2) if out_of_focus else 0.0
        covered = strength * rng.uniform(0.05, 0.6) / max(nearness, 1)
        layers.append(
            Streaks(
                density=min(1000 * covered / (width * length), 15),
                length=length,
                angle=wind + rng.normal(0, 6),
                width=width,
                brightness=visibility * rng.uniform(0.08, 0.55) * (1 + defocus / width),
                spread=_log_uniform(rng, 0.7, 7),
                defocus=defocus,
                evenness=rng.choice((2.0, 6.0)),
            )
        )
    if rng.random() < 0.25:
        layers.append(_splashes(rng, resolution, visibility))
    veiled = rng.random() < 0.5
    return Rain(
        tuple(layers),
        mist=rng.uniform(0, 0.5) * strength if veiled else 0.0,
        airlight=rng.uniform(0.6, 1),
        blend=blend,
        veil=rng.uniform(-1, 1),
        tint=tuple(rng.uniform(0.92, 1, 3)),
    )


def _splashes(rng: np.random.Generator, resolution: float, visibility: float) -> Streaks:
    """Sample drops that burst at the ground: short and in all directions, most of them flat."""
    width = max(resolution * rng.uniform(0.8, 1.5), 1)
    return Streaks(
        density=min(rng.uniform(2, 40) / width**2, 10),
        length=width * rng.uniform(1.5, 5),
        angle=90,
        width=width,
        brightness=visibility * rng.uniform(0.15, 0.7),
        spread=rng.uniform(5, 60),
        evenness=6.0,
    )


def _none(rng: np.random.Generator) -> Rain:
    """Sample nothing: networks learn to leave photographs without rain as they are."""
    return Rain(())


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


PRESETS: Mapping[Preset, Callable[[np.random.Generator], Rain]] = {
    "light": _light,
    "heavy": _heavy,
    "mixed": _mixed,
    "misty": _misty,
    "real": _real,
    "none": _none,
}
