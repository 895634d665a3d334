from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.data.degradations.defocus_blur import (
    disc_kernel,
    draw_defocus_map,
    half_disc_kernels,
    render_defocus,
)
from basicsr.data.degradations.linear_light import to_linear

RADII = [0.0, 0.4, 0.7, 1.0, 2.3, 5.0, 9.5]


def _noise(height: int = 40, width: int = 48, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (height, width, channels), dtype=np.uint8)


def _map(height: int, width: int, seed: int = 0, max_radius: float = 6.0) -> np.ndarray:
    return draw_defocus_map(height, width, max_radius, 20.0, np.random.default_rng(seed))


@pytest.mark.parametrize("radius", RADII)
def test_kernels_sum_to_one_and_are_symmetric(radius):
    disc = disc_kernel(radius)
    left, right = half_disc_kernels(radius)
    for kernel in (disc, left, right):
        assert kernel.dtype == np.float32
        assert kernel.shape[0] == kernel.shape[1]
        assert kernel.shape[0] % 2 == 1
        assert kernel.sum() == pytest.approx(1, abs=1e-5)
        np.testing.assert_array_equal(kernel, kernel[::-1])
    np.testing.assert_array_equal(disc, disc.T)
    np.testing.assert_array_equal(left, right[:, ::-1])
    np.testing.assert_allclose((left + right) / 2, disc, atol=1e-7)


def test_disc_is_flat_with_edges_by_covered_area():
    radius = 5.3
    disc = disc_kernel(radius)
    assert disc.shape == (11, 11)
    inside = disc[5, 5]
    assert inside == pytest.approx(1 / (np.pi * radius**2), rel=0.01)
    assert disc[5, 0] == pytest.approx(0.8 * inside, rel=0.05)  # from 4.5 to 5.3
    assert disc[0, 0] == 0
    y, x = np.mgrid[-5:6, -5:6]
    # the second moment of a disc is r^2 / 4 in each direction, that of a pixel adds 1 / 12
    assert (disc * x**2).sum() == pytest.approx(radius**2 / 4 + 1 / 12, rel=0.02)
    assert (disc * y**2).sum() == pytest.approx(radius**2 / 4 + 1 / 12, rel=0.02)


def test_half_discs_lie_on_their_sides():
    left, right = half_disc_kernels(6.0)
    place = np.arange(len(left)) - len(left) // 2
    assert left[:, place > 0].sum() == 0
    # the centroid of a half disc is 4 r / (3 pi) from the centre
    assert (left.sum(axis=0) * place).sum() == pytest.approx(-4 * 6 / (3 * np.pi), rel=0.02)
    assert (right.sum(axis=0) * place).sum() == pytest.approx(4 * 6 / (3 * np.pi), rel=0.02)


def test_a_small_disc_is_a_point():
    np.testing.assert_array_equal(disc_kernel(0.5), [[1.0]])
    np.testing.assert_array_equal(disc_kernel(0.0), [[1.0]])


def test_points_of_light_draw_the_kernels():
    image = np.zeros((31, 31, 1), np.float32)
    image[15, 15] = 1
    behind = render_defocus(image, np.full((31, 31), 4.0, np.float32))
    in_front = render_defocus(image, np.full((31, 31), -4.0, np.float32))
    left, right = half_disc_kernels(4.0)
    for view, kernel in (
        (behind.centre, disc_kernel(4.0)),
        (behind.left, left),
        (behind.right, right),
        (in_front.left, right),
        (in_front.right, left),
    ):
        reach = len(kernel) // 2
        middle = slice(15 - reach, 16 + reach)
        np.testing.assert_allclose(to_linear(view)[middle, middle, 0], kernel, atol=1e-6)


def test_left_and_right_average_to_the_centre_in_linear_light():
    views = render_defocus(_noise().astype(np.float32) / 255, _map(40, 48))
    centre, left, right = (to_linear(view) for view in views)
    np.testing.assert_allclose((left + right) / 2, centre, atol=1e-6)
    assert np.abs(left - right).max() > 0.05


def test_between_two_rungs_the_blur_is_in_between():
    image = np.zeros((31, 31, 1), np.float32)
    image[15, 15] = 1
    light = to_linear(render_defocus(image, np.full((31, 31), 3.2, np.float32)).centre)[..., 0]
    place = np.arange(31) - 15
    second_moment = (light.sum(axis=0) * place**2).sum()
    assert light.sum() == pytest.approx(1, abs=1e-3)
    assert second_moment == pytest.approx(3.2**2 / 4 + 1 / 12, rel=0.03)


def test_no_radius_is_no_blur():
    for view in render_defocus(_noise(), np.zeros((40, 48), np.float32)):
        np.testing.assert_array_equal(view, _noise())


def test_each_place_has_its_own_radius():
    radius = np.zeros((60, 60), np.float32)
    radius[:, 30:] = 5
    image = _noise(60, 60)
    centre = render_defocus(image, radius).centre
    np.testing.assert_array_equal(centre[:, :30], image[:, :30])
    uniform = render_defocus(image, np.full((60, 60), 5, np.float32)).centre
    np.testing.assert_array_equal(centre[:, 30:], uniform[:, 30:])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_types_agree(dtype):
    radius = _map(40, 48)
    image = _noise().astype(np.uint16) * 257
    expected = render_defocus(image / np.float32(65535), radius)
    levels = 65535 if dtype == np.uint16 else 255
    clean = {np.uint8: _noise(), np.uint16: image, np.float32: image / np.float32(65535)}[dtype]
    for view, reference in zip(render_defocus(clean, radius), expected, strict=True):
        assert view.dtype == dtype
        scale = 1 if dtype == np.float32 else levels
        np.testing.assert_allclose(view / np.float32(scale), reference, atol=0.6 / levels)


@pytest.mark.parametrize("size", [(1, 1), (30, 200), (300, 64)])
def test_maps_are_smooth_and_within_the_radius(size):
    radius = draw_defocus_map(*size, 8.0, 40.0, np.random.default_rng(1))
    assert radius.shape == size
    assert radius.dtype == np.float32
    assert np.abs(radius).max() <= 8
    if max(size) > 1:
        # the slope of a cubic B-spline is at most the difference of knots over their distance
        assert np.abs(np.diff(radius, axis=size.index(max(size)))).max() <= 8 * 3 / 40
        assert np.ptp(radius) > 4


def test_maps_use_the_range():
    maps = np.concatenate([_map(100, 100, seed, 8.0).ravel() for seed in range(20)])
    assert maps.min() < -7
    assert maps.max() > 7
    assert np.abs(maps.mean()) < 1
    assert 0.02 < (np.abs(maps) < 0.5).mean() < 0.3  # in focus


def test_maps_are_functions_of_the_seed():
    np.testing.assert_array_equal(_map(30, 40, 1), _map(30, 40, 1))
    assert (_map(30, 40, 1) != _map(30, 40, 2)).any()


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([1, 3]),
    st.floats(0, 15),
    st.floats(1, 300),
    st.integers(0, 2**32),
)
def test_any_size(height, width, channels, max_radius, scale, seed):
    radius = draw_defocus_map(height, width, max_radius, scale, np.random.default_rng(seed))
    for view in render_defocus(_noise(height, width, channels), radius):
        assert view.shape == (height, width, channels)
        assert view.dtype == np.uint8
