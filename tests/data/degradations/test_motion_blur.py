from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.data.degradations.linear_light import from_linear, to_linear
from basicsr.data.degradations.motion_blur import (
    CameraShake,
    average_moving_frames,
    blur_with_psf,
    draw_camera_shake,
    draw_trajectory,
    motion_psf,
    render_motion_blur,
)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _noise(height: int = 40, width: int = 48, channels: int = 3) -> np.ndarray:
    return _rng(9).integers(0, 256, (height, width, channels), dtype=np.uint8)


def _straight(length: float, angle: float, points: int = 401) -> np.ndarray:
    way = np.linspace(-length / 2, length / 2, points)
    return np.stack([way * np.cos(angle), way * np.sin(angle)], axis=1)


@pytest.mark.parametrize("length", [0.5, 8, 32, 90])
def test_trajectories_are_centred_and_as_long_as_asked(length):
    trajectory = draw_trajectory(CameraShake(length, tremor=2, pull=3, impulses=2), _rng())
    steps = np.linalg.norm(np.diff(trajectory, axis=0), axis=1)
    assert steps.sum() == pytest.approx(length)
    assert steps.max() <= 0.26
    np.testing.assert_allclose(trajectory.mean(axis=0), 0, atol=1e-9)


def test_without_tremor_and_shakes_the_camera_drifts_straight():
    trajectory = draw_trajectory(CameraShake(20, tremor=0), _rng())
    assert np.linalg.norm(trajectory[-1] - trajectory[0]) == pytest.approx(20)


def _mean_distance(**changes: float) -> float:
    """Return the distance between both ends in units of the length, averaged over shakes."""
    shake = CameraShake(20, tremor=0.3)._replace(**changes)
    ends = [draw_trajectory(shake, _rng(seed))[[0, -1]] for seed in range(200)]
    return float(np.mean([np.linalg.norm(end - begin) / 20 for begin, end in ends]))


def test_tremor_pull_and_impulses_bend_the_trajectory():
    straight = _mean_distance()
    assert straight > 0.97
    assert _mean_distance(tremor=1) > 0.8
    assert _mean_distance(tremor=3) < 0.6
    assert _mean_distance(tremor=1, pull=16) < 0.6
    assert _mean_distance(impulses=3) < 0.6


def test_impulses_come_as_often_as_asked():
    shake = CameraShake(20, tremor=0, impulses=2)
    turned = []
    for seed in range(400):
        steps = np.diff(draw_trajectory(shake, _rng(seed)), axis=0)
        turned.append(((steps[1:] * steps[:-1]).sum(axis=1) < 0).sum())
    assert np.mean(turned) == pytest.approx(2, rel=0.1)


def test_the_step_count_does_not_change_the_statistics():
    # lengths decide the number of steps; the bend over the exposure must not depend on it
    short, long = (
        np.mean(
            [
                np.linalg.norm(np.ptp(draw_trajectory(CameraShake(px, 1.5), _rng(s)), axis=0)) / px
                for s in range(300)
            ]
        )
        for px in (8, 80)
    )
    assert short == pytest.approx(long, rel=0.05)


def test_psf_sums_to_one_and_keeps_the_centre():
    for seed in range(20):
        psf = motion_psf(draw_trajectory(draw_camera_shake(_rng(seed)), _rng(seed)))
        assert psf.dtype == np.float32
        assert psf.shape[0] == psf.shape[1]
        assert psf.shape[0] % 2 == 1
        assert psf.min() >= 0
        assert psf.sum() == pytest.approx(1, abs=1e-5)
        place = np.arange(len(psf)) - len(psf) // 2
        assert (psf.sum(axis=0) * place).sum() == pytest.approx(0, abs=1e-4)
        assert (psf.sum(axis=1) * place).sum() == pytest.approx(0, abs=1e-4)


def test_psf_of_a_horizontal_line():
    psf = motion_psf(_straight(4, 0, points=40001))
    expected = np.zeros((5, 5))
    expected[2] = [0.125, 0.25, 0.25, 0.25, 0.125]
    np.testing.assert_allclose(psf, expected, atol=1e-4)


def test_psf_shares_sub_pixel_positions():
    psf = motion_psf(np.array([[0.25, 0.0], [0.25, -0.5]]))
    expected = [[0, 0.1875, 0.0625], [0, 0.5625, 0.1875], [0, 0, 0]]
    np.testing.assert_allclose(psf, expected, atol=1e-7)


def test_no_motion_is_no_blur():
    still = np.zeros((1, 2))
    np.testing.assert_array_equal(motion_psf(still), [[1.0]])
    np.testing.assert_array_equal(blur_with_psf(_noise(), motion_psf(still)), _noise())


def test_a_point_of_light_draws_the_psf():
    psf = motion_psf(draw_trajectory(CameraShake(12, tremor=2), _rng()))
    image = np.zeros((41, 41, 1), np.float32)
    image[20, 20] = 1
    light = to_linear(blur_with_psf(image, psf))[..., 0]
    radius = len(psf) // 2
    middle = slice(20 - radius, 21 + radius)
    np.testing.assert_allclose(light[middle, middle], psf, atol=1e-5)
    assert light.sum() == pytest.approx(1, abs=1e-3)


def test_blur_averages_light_and_not_levels():
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, ::2] = 255
    blurred = blur_with_psf(image, np.full((1, 3), 1 / 3, np.float32))
    # a third of the light is level 156; the mean of the levels would be 85
    assert blurred[0, 1:7, 0].tolist() == [213, 156, 213, 156, 213, 156]


@pytest.mark.parametrize("rotation", [0.0, 0.7])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_types_agree(dtype, rotation):
    shake = CameraShake(6, tremor=1, rotation=rotation)
    expected = render_motion_blur(_noise() / np.float32(255), shake, _rng())
    scale = 1 if dtype == np.float32 else np.iinfo(dtype).max
    clean = (_noise().astype(np.float64) / 255 * scale).astype(dtype)
    blurred = render_motion_blur(clean, shake, _rng())
    assert blurred.dtype == dtype
    assert expected.dtype == np.float32
    np.testing.assert_allclose(blurred / np.float32(scale), expected, atol=0.51 / 255)


def test_averaged_frames_equal_the_convolution_without_rotation():
    image = from_linear(np.clip(_smooth(), 0, 1), np.float32)
    trajectory = _straight(7, 0.6)
    convolved = blur_with_psf(image, motion_psf(trajectory))
    averaged = average_moving_frames(image, trajectory, 0.0, (32, 32))
    # seven frames stand for the whole exposure
    np.testing.assert_allclose(averaged[8:-8, 8:-8], convolved[8:-8, 8:-8], atol=0.01)


def _smooth() -> np.ndarray:
    y, x = np.mgrid[:64, :64]
    wave = 0.5 + 0.4 * np.sin(x / 5) * np.cos(y / 7)
    return np.repeat(wave[..., None], 3, axis=2).astype(np.float32)


def test_rotation_blurs_more_far_from_its_centre():
    clean = _noise(129, 129)
    still = np.zeros((2, 2))
    rotated = average_moving_frames(clean, still, 4.0, (64, 64)).astype(int)
    change = np.abs(rotated - clean).mean(axis=2)
    assert change[60:69, 60:69].mean() < 0.5 * change[:9, :9].mean()
    y, x = np.mgrid[:129, :129]
    wheel = 128 + 100 * np.cos(8 * np.arctan2(y - 64, x - 64))[..., None]
    wheel = np.where(np.hypot(y - 64, x - 64)[..., None] < 20, 128, wheel).astype(np.uint8)
    turned = average_moving_frames(wheel, still, 2.0, (64, 64))
    # the exposure is symmetric about the sharp image
    reverse = average_moving_frames(wheel, still, -2.0, (64, 64))
    assert np.abs(turned.astype(int) - reverse)[16:-16, 16:-16].max() <= 2


@pytest.mark.parametrize("max_rotation", [0.0, 2.0])
def test_blur_is_a_function_of_the_seed(max_rotation):
    clean = _noise()
    one, two, other = (
        render_motion_blur(clean, draw_camera_shake(rng, 20, max_rotation), rng)
        for rng in (_rng(1), _rng(1), _rng(2))
    )
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()
    np.testing.assert_array_equal(clean, _noise())


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([1, 3]),
    st.floats(0, 50),
    st.floats(0, 3),
    st.integers(0, 2**32),
)
def test_any_size(height, width, channels, max_length, max_rotation, seed):
    rng = _rng(seed)
    shake = draw_camera_shake(rng, max_length, max_rotation)
    assert shake.length <= max_length
    blurred = render_motion_blur(_noise(height, width, channels), shake, rng)
    assert blurred.shape == (height, width, channels)
    assert blurred.dtype == np.uint8


def test_a_uniform_image_stays():
    gray = np.full((30, 30, 3), 77, np.uint8)
    for seed in range(5):
        blurred = render_motion_blur(gray, draw_camera_shake(_rng(seed), 25, 1), _rng(seed))
        np.testing.assert_array_equal(blurred, gray)
