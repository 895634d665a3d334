"""Motion blur of a hand-held camera: random trajectories, and what an exposure along them records.

The trajectory follows the model of Boracchi and Foi, "Modeling the performance of image restoration
from motion blur", IEEE Transactions on Image Processing 21(8), 2012: a point that moves at constant
speed and keeps its direction by inertia, while a tremor changes the direction a little at every
step, a spring pulls it back to where it began, and now and then an impulsive shake turns it round.
Here these rates are per exposure, so that the trajectory does not depend on the number of steps.

The exposure averages linear light. A translation of the whole image is a convolution with the
trajectory's point spread function (PSF); with rotation, warped frames are averaged, as the public
data sets average the frames of a high-speed camera (Nah et al., "Deep multi-scale convolutional
neural network for dynamic scene deblurring", CVPR 2017).
"""

from __future__ import annotations

import cmath
import math
from typing import NamedTuple

import numpy as np

from basicsr.data.degradations.linear_light import from_linear, to_linear

_STEPS_PER_PIXEL = 4
_LEAST_STEPS = 64
_FRAMES_PER_PIXEL = 1.0  # frames further apart than a pixel would show as separate edges


class CameraShake(NamedTuple):
    """Statistics of the camera's motion during one exposure.

    Attributes:
        length: length of the trajectory in pixels.
        tremor: standard deviation of the change of direction over the exposure, in radians.
        pull: strength of the spring; 0 lets the camera drift away freely.
        impulses: expected number of impulsive shakes.
        rotation: rotation about the optical axis between begin and end, in degrees.
    """

    length: float
    tremor: float = 1.0
    pull: float = 0.0
    impulses: float = 0.0
    rotation: float = 0.0


def draw_camera_shake(
    rng: np.random.Generator, max_length: float = 32.0, max_rotation: float = 0.0
) -> CameraShake:
    """Draw a shake: from nearly straight drifts to tangled trajectories, up to `max_length` pixels.

    Lengths are uniform from one pixel; rotations uniform in +-`max_rotation` degrees.
    """
    return CameraShake(
        length=rng.uniform(min(1.0, max_length), max_length),
        tremor=3 * rng.random() ** 2,
        pull=20 * rng.random() ** 2,
        impulses=rng.uniform(0, 1.5),
        rotation=rng.uniform(-max_rotation, max_rotation),
    )


def draw_trajectory(shake: CameraShake, rng: np.random.Generator) -> np.ndarray:
    """Draw the image's path over the sensor during one exposure.

    Returns:
        N x 2 float64 array of (x, y) in pixels at equal times; its mean is (0, 0), so that the
        blurred image is not shifted against the sharp one.
    """
    steps = max(_LEAST_STEPS, math.ceil(_STEPS_PER_PIXEL * shake.length))
    direction = cmath.exp(2j * math.pi * rng.random())
    turns = rng.normal(0, shake.tremor / math.sqrt(steps), steps)
    impulsive = rng.random(steps) < shake.impulses / steps
    reversals = rng.uniform(-1, 1, steps)
    position = 0j  # in units of the trajectory's length
    path = [position]
    for turn, shaken, reversal in zip(
        turns.tolist(), impulsive.tolist(), reversals.tolist(), strict=True
    ):
        if shaken:
            direction *= cmath.exp(1j * (math.pi + reversal))
        direction = direction * cmath.exp(1j * turn) - shake.pull * position / steps
        direction /= abs(direction)
        position += direction / steps
        path.append(position)
    points = np.array(path)
    points = (points - points.mean()) * shake.length
    return np.stack([points.real, points.imag], axis=1)


def motion_psf(trajectory: np.ndarray) -> np.ndarray:
    """Return the point spread function of an N x 2 trajectory of (x, y).

    Each point is shared bilinearly by its four neighbouring pixels.

    Returns:
        k x k float32 kernel with odd k, centred on (0, 0), non-negative and of sum 1.
    """
    radius = math.ceil(np.abs(trajectory).max(initial=0.0))
    size = 2 * radius + 1
    corner = np.floor(trajectory)
    right, down = (trajectory - corner).T
    column, row = (corner.astype(np.int64) + radius).T
    kernel = np.zeros((size + 1) ** 2)
    for below, beside, share in (
        (0, 0, (1 - down) * (1 - right)),
        (0, 1, (1 - down) * right),
        (1, 0, down * (1 - right)),
        (1, 1, down * right),
    ):
        place = (row + below) * (size + 1) + column + beside
        kernel += np.bincount(place, share, kernel.size)
    kernel = kernel.reshape(size + 1, size + 1)[:size, :size] / len(trajectory)
    return kernel.astype(np.float32)


def blur_with_psf(image: np.ndarray, psf: np.ndarray) -> np.ndarray:
    """Convolve an H x W x C sRGB image with a PSF in linear light, reflected at the borders.

    Returns:
        An array of the image's shape and type (uint8, uint16 or float32).
    """
    import cv2  # here, so that importing the library does not load OpenCV

    # filter2D correlates: the flipped kernel makes it a convolution
    light = cv2.filter2D(to_linear(image), -1, cv2.flip(psf, -1), borderType=cv2.BORDER_REFLECT_101)
    return from_linear(light.reshape(image.shape), image.dtype)


def average_moving_frames(
    image: np.ndarray, trajectory: np.ndarray, rotation: float, centre: tuple[float, float]
) -> np.ndarray:
    """Average, in linear light, frames of an image that moves along a trajectory and rotates.

    Args:
        image: H x W x C, uint8, uint16 or float32 sRGB.
        trajectory: N x 2 positions (x, y) in pixels at equal times.
        rotation: total rotation in degrees, at constant speed, zero in the middle of the exposure.
        centre: centre of rotation (x, y) in pixels; it need not be inside the image.

    Returns:
        An array of the image's shape and type.
    """
    import cv2

    height, width = image.shape[:2]
    light = to_linear(image)
    total = np.zeros(light.shape, np.float32)
    reach = max(math.hypot(x - centre[0], y - centre[1]) for x in (0, width) for y in (0, height))
    path_length = float(np.linalg.norm(np.diff(trajectory, axis=0), axis=1).sum())
    travelled = path_length + math.radians(abs(rotation)) * reach
    count = max(2, math.ceil(_FRAMES_PER_PIXEL * travelled) + 1)
    # each frame stands in the middle of its share of the exposure
    times = (np.arange(count) + 0.5) / count
    moments = np.linspace(0, 1, len(trajectory))
    for time in times.tolist():
        warp = cv2.getRotationMatrix2D(centre, rotation * (time - 0.5), 1.0)
        for axis in (0, 1):
            warp[axis, 2] += np.interp(time, moments, trajectory[:, axis])
        frame = cv2.warpAffine(
            light, warp, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        total += frame.reshape(light.shape)
    return from_linear(total / np.float32(count), image.dtype)


def render_motion_blur(
    clean: np.ndarray, shake: CameraShake, rng: np.random.Generator
) -> np.ndarray:
    """Return a clean H x W x C image as a shaken camera records it, in the type of `clean`.

    With rotation the camera turns about a point drawn inside the image.
    """
    trajectory = draw_trajectory(shake, rng)
    if shake.rotation == 0:
        return blur_with_psf(clean, motion_psf(trajectory))
    height, width = clean.shape[:2]
    centre = (rng.uniform(0, width), rng.uniform(0, height))
    return average_moving_frames(clean, trajectory, shake.rotation, centre)
