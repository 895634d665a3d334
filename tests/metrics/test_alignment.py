"""Alignment with the ground truth, for RealBlur."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from basicsr.metrics import measure
from basicsr.metrics.alignment import align, intensity_scale, is_plausible

HEIGHT, WIDTH = 120, 150
# from pixels of the ground truth to those of the restored image
MOVED = np.array([[1.004, 0.003, 1.7], [-0.002, 0.997, -1.2], [1.5e-5, -1e-5, 1]])


MARGIN = 20


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """Smooth random colours, float32 in [0, 1], in the view of the ground truth and around it."""
    coarse = np.random.default_rng(4).random((18, 21, 3)).astype(np.float32)
    size = (WIDTH + 2 * MARGIN, HEIGHT + 2 * MARGIN)
    return cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC).clip(0, 1)


@pytest.fixture(scope="module")
def target(scene) -> np.ndarray:
    return scene[MARGIN:-MARGIN, MARGIN:-MARGIN]


@pytest.fixture(scope="module")
def moved(scene) -> np.ndarray:
    to_scene = np.array([[1, 0, MARGIN], [0, 1, MARGIN], [0, 0, 1]]) @ np.linalg.inv(MOVED)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpPerspective(scene, to_scene, (WIDTH, HEIGHT), flags=flags).clip(0, 1)


def levels(image: np.ndarray) -> np.ndarray:
    return (image * 255).round().astype(np.uint8)


def test_a_known_homography_is_found(target, moved) -> None:
    aligned = align(0.9 * moved, target)
    corners = np.array([[[0, 0], [WIDTH, 0], [0, HEIGHT], [WIDTH, HEIGHT]]], np.float32)
    found, expected = (cv2.perspectiveTransform(corners, h) for h in (aligned.homography, MOVED))
    np.testing.assert_allclose(found, expected, atol=0.2)  # pixels
    np.testing.assert_allclose(aligned.image[10:-10, 10:-10], target[10:-10, 10:-10], atol=0.04)
    # beyond the border of the moved image there is nothing
    assert 0 < (~aligned.mask).mean() < 0.05
    assert not aligned.image[~aligned.mask].any()


def test_scores_are_restored(target, moved) -> None:
    before = measure(levels(0.9 * moved), levels(target), "rgb")
    after = measure(levels(0.9 * moved), levels(target), "realblur")
    assert before["psnr"] < 22
    assert after["psnr"] > 38
    assert after["ssim_gaussian"] > 0.98 > before["ssim"]
    assert after["unaligned"] == 0
    gray = [levels(cv2.cvtColor(each, cv2.COLOR_RGB2GRAY)) for each in (0.9 * moved, target)]
    assert measure(*gray, "realblur")["psnr"] > 38


def test_identical_images(target) -> None:
    scores = measure(levels(target), levels(target), "realblur")
    assert scores["psnr"] > 90  # a version of OpenCV may leave a shift of 1e-6 pixels
    assert scores["ssim_gaussian"] == pytest.approx(1, abs=1e-6)
    assert scores["unaligned"] == 0


def test_intensity_scale(target) -> None:
    assert intensity_scale(0.8 * target, target) == pytest.approx(1.25, rel=1e-5)
    assert intensity_scale(0 * target, target) == 1
    assert intensity_scale(target, 0 * target) == 1


@pytest.mark.parametrize("failure", ["black", "constant", "noise", "mirrored", "shifted"])
def test_without_an_alignment_the_scaled_image_is_measured(target, failure) -> None:
    noise = np.random.default_rng(0).random(target.shape, np.float32)
    restored = {
        "black": 0 * target,
        "constant": 0 * target + 0.5,
        "noise": noise,
        "mirrored": target[:, ::-1],
        "shifted": np.roll(target, 60, axis=1),
    }[failure]
    restored, gt = levels(restored), levels(target)
    scores = measure(restored, gt, "realblur")
    assert scores["unaligned"] == 1
    a, b = restored / 255, gt / 255
    if a.any():
        a = a * (a * b).sum() / (a * a).sum()
    expected = -10 * np.log10(((a - b) ** 2).mean())
    assert scores["psnr"] == pytest.approx(expected, abs=1e-4)
    assert -1 <= scores["ssim_gaussian"] < 0.9


@pytest.mark.parametrize(
    ("change", "plausible"),
    [
        ({}, True),
        ({(0, 2): 19.0}, True),  # the diagonal has 192 pixels
        ({(0, 2): 20.0}, False),
        ({(1, 1): 1.1}, True),
        ({(1, 1): 1.2}, False),
        ({(2, 0): -0.01}, False),  # the right border lies behind the camera
        ({(0, 0): np.nan}, False),
    ],
)
def test_plausible_homographies(change, plausible) -> None:
    homography = np.eye(3, dtype=np.float32)
    for place, value in change.items():
        homography[place] = value
    assert is_plausible(homography, (HEIGHT, WIDTH)) is plausible
