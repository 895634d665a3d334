"""What a camera and its user do to a photograph after the scene has been recorded.

Tone curve, enlargement, noise, sharpening and JPEG compression, in this order. Images of one scene,
with rain and without, pass through the same `Camera` with the same noise: what is left of their
difference is the rain, and a network that is trained on them neither denoises nor sharpens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_BLOCK = 8  # side of JPEG's blocks


class Camera(NamedTuple):
    """Processing of a photograph. The defaults leave it as it is.

    Args:
        gamma: exponent of the tone curve.
        enlargement: factor by which the photograph was enlarged.
        noise: standard deviation of the noise that all pixels have, in 8-bit levels.
        shot_noise: standard deviation of the noise that white pixels have in addition; its variance
            is proportional to the level (Foi et al., "Practical Poissonian-Gaussian noise modeling
            and fitting", IEEE Transactions on Image Processing 17(10), 2008).
        grain: size of the noise's grains in pixels, at least 1.
        chroma: share of the noise that differs between the channels, 0 to 1.
        sharpening: amount of the unsharp mask.
        sharpening_radius: standard deviation of its Gaussian, in pixels.
        jpeg_quality: 1 to 100; None for no compression.
    """

    gamma: float = 1.0
    enlargement: float = 1.0
    noise: float = 0.0
    shot_noise: float = 0.0
    grain: float = 1.0
    chroma: float = 0.5
    sharpening: float = 0.0
    sharpening_radius: float = 1.0
    jpeg_quality: int | None = None


def draw_camera(rng: np.random.Generator) -> Camera:
    """Draw the processing of a photograph; each step but the compression is often left out."""
    camera = Camera(jpeg_quality=int(rng.integers(60, 99)))
    if rng.random() < 0.4:
        camera = camera._replace(gamma=np.exp(rng.uniform(-0.35, 0.35)))
    if rng.random() < 0.25:
        camera = camera._replace(enlargement=rng.uniform(1.1, 2))
    if rng.random() < 0.6:
        strength = rng.uniform(0, 1) ** 2
        camera = camera._replace(
            noise=5 * strength * rng.random(),
            shot_noise=12 * strength * rng.random(),
            grain=rng.uniform(1, 2.5),
            chroma=rng.random(),
        )
    if rng.random() < 0.4:
        camera = camera._replace(
            sharpening=rng.uniform(0.1, 1.2), sharpening_radius=rng.uniform(0.6, 1.6)
        )
    return camera


def photograph(
    images: Sequence[np.ndarray], camera: Camera, rng: np.random.Generator
) -> list[np.ndarray]:
    """Process images of one scene alike.

    Args:
        images: H x W x C uint8 images of one shape; they stay as they are.
        camera: processing of all images.
        rng: source of the noise and of the place of JPEG's blocks.
    """
    shape = images[0].shape
    noise = _noise(shape, camera, rng) if camera.noise or camera.shot_noise else None
    top, left = (int(each) for each in rng.integers(_BLOCK, size=2))
    return [_processed(image, camera, noise, top, left) for image in images]


def _processed(
    image: np.ndarray, camera: Camera, noise: np.ndarray | None, top: int, left: int
) -> np.ndarray:
    import cv2  # here, so that importing the library does not load OpenCV

    height, width, channels = image.shape
    if camera.gamma != 1:
        levels = 255 * (np.arange(256) / 255) ** camera.gamma
        image = np.rint(levels).astype(np.uint8)[image]
    if camera.enlargement != 1:
        size = (max(round(side / camera.enlargement), 1) for side in (width, height))
        small = cv2.resize(image, tuple(size), interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
        image = image.reshape(height, width, channels)
    if noise is not None or camera.sharpening:
        levels = image.astype(np.float32)
        if noise is not None:
            variance = camera.noise**2 + camera.shot_noise**2 / 255 * levels
            levels += noise * np.sqrt(variance)
        if camera.sharpening:
            smooth = cv2.GaussianBlur(levels, (0, 0), camera.sharpening_radius)
            levels += camera.sharpening * (levels - smooth.reshape(levels.shape))
        image = np.rint(np.clip(levels, 0, 255)).astype(np.uint8)
    if camera.jpeg_quality is not None:
        image = _compressed(image, camera.jpeg_quality, top, left)
    return image


def _noise(shape: tuple[int, ...], camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """Return noise of standard deviation 1, H x W x C float32."""
    import cv2  # here, so that importing the library does not load OpenCV

    height, width, channels = shape
    rows, columns = (max(round(side / camera.grain), 1) for side in (height, width))
    fields = rng.standard_normal((rows, columns, channels + 1), np.float32)
    common, single = fields[..., :1], fields[..., 1:]
    noise = np.sqrt(1 - camera.chroma) * common + np.sqrt(camera.chroma) * single
    noise = noise.astype(np.float32)
    if (rows, columns) != (height, width):
        noise = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        noise = noise.reshape(shape)
        # interpolation averages; in images of few pixels the noise may be constant
        noise /= max(float(noise.std()), 0.5)
    return noise


def _compressed(image: np.ndarray, quality: int, top: int, left: int) -> np.ndarray:
    """Compress an image as a part of a larger one, whose blocks begin `top`, `left` pixels before.

    Networks would otherwise learn that blocks begin at the border of a patch.
    """
    import cv2  # here, so that importing the library does not load OpenCV

    channels = image.shape[2]
    whole = cv2.copyMakeBorder(image, top, 0, left, 0, cv2.BORDER_REPLICATE)
    # OpenCV's channels are BGR
    if channels == 3:
        whole = cv2.cvtColor(whole, cv2.COLOR_RGB2BGR)
    _, file = cv2.imencode(".jpg", whole, (cv2.IMWRITE_JPEG_QUALITY, quality))
    decoded = cv2.imdecode(file, cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_GRAYSCALE)
    assert decoded is not None
    if channels == 3:
        decoded = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    return np.ascontiguousarray(decoded.reshape(*whole.shape[:2], channels)[top:, left:])
