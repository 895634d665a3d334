from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.data.degradations.rain import PRESETS, Rain, Streaks, draw_streaks, render_rain
from basicsr.metrics import measure

STREAKS = Streaks(density=1.0, length=20, angle=0, width=2, brightness=0.4)


def _clean(height: int = 96, width: int = 128) -> np.ndarray:
    """Return a smooth gray scene with levels between 60 and 180."""
    y, x = np.mgrid[:height, :width]
    wave = 120 + 60 * np.sin(x / 23) * np.cos(y / 17)
    return np.repeat(wave[..., None], 3, axis=2).astype(np.uint8)


def _rain(size: int = 200, seed: int = 0, **changes: float) -> np.ndarray:
    return draw_streaks(size, size, STREAKS._replace(**changes), np.random.default_rng(seed))


@settings(deadline=None, max_examples=50)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(sorted(PRESETS)),
    st.integers(0, 2**32),
)
def test_any_size(height, width, preset, seed):
    rainy = render_rain(_clean(height, width), preset, np.random.default_rng(seed))
    assert rainy.shape == (height, width, 3)
    assert rainy.dtype == np.uint8


@pytest.mark.parametrize("preset", PRESETS)
def test_rain_is_a_function_of_the_seed(preset):
    one, two, other = (
        render_rain(_clean(), preset, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_the_clean_image_stays():
    clean = _clean()
    render_rain(clean, "heavy", np.random.default_rng(0))
    np.testing.assert_array_equal(clean, _clean())


@pytest.mark.parametrize(("preset", "expected"), [("light", 27.0), ("heavy", 13.5)])
def test_presets_are_as_strong_as_the_public_sets(preset, expected):
    scores = []
    for seed in range(40):
        rainy = render_rain(_clean(), preset, np.random.default_rng(seed))
        scores.append(measure(rainy, _clean(), "matlab_y")["psnr"])
    assert np.mean(scores) == pytest.approx(expected, abs=1.5)


def test_mixed_rain_covers_weak_and_strong():
    scores = [
        measure(render_rain(_clean(), "mixed", np.random.default_rng(seed)), _clean())["psnr"]
        for seed in range(40)
    ]
    assert min(scores) < 18
    assert max(scores) > 28


def test_no_layer_and_no_mist_is_no_rain():
    rainy = render_rain(_clean(), Rain(()), np.random.default_rng(0))
    np.testing.assert_array_equal(rainy, _clean())


def test_light_grows_with_density_brightness_length_and_width():
    mean = _rain().mean()
    assert _rain(density=2.0).mean() == pytest.approx(2 * mean, rel=0.2)
    assert _rain(brightness=0.8).mean() == pytest.approx(2 * mean, rel=1e-5)
    assert _rain(length=40).mean() == pytest.approx(2 * mean, rel=0.2)
    assert _rain(width=4).mean() == pytest.approx(2 * mean, rel=0.2)
    assert _rain().min() >= 0


def test_brightness_is_reached_in_the_middle_of_a_streak():
    brightest = [_rain(60, density=0.05, width=3, seed=seed).max() for seed in range(300)]
    # single streaks have up to 1.4 times the mean brightness
    assert np.percentile(brightest, 99) == pytest.approx(1.4 * 0.4, rel=0.15)


@pytest.mark.parametrize("angle", [-40, -10, 0, 25, 60, 90])
def test_streaks_run_along_their_angle(angle):
    light = _rain(300, angle=angle, length=40, width=6)
    down, right = np.gradient(light)
    # the direction in which light changes least, from the structure tensor
    across = 0.5 * np.arctan2(2 * (right * down).mean(), (right**2 - down**2).mean())
    along = -np.degrees(across)  # from the vertical, positive to the right going down
    assert (along - angle + 90) % 180 - 90 == pytest.approx(0, abs=3)


def test_rain_is_as_dense_at_the_border_as_inside():
    light = np.mean([_rain(120, seed=seed) for seed in range(60)], axis=0)
    border = np.concatenate([light[:6].ravel(), light[-6:].ravel(), light[:, :6].ravel()])
    assert border.mean() == pytest.approx(light[30:90, 30:90].mean(), rel=0.1)


def test_screen_changes_bright_backgrounds_less():
    white, gray = (np.full((64, 64, 3), level, np.uint8) for level in (250, 100))
    layers = (STREAKS._replace(density=5),)

    def added(clean: np.ndarray, blend: str) -> float:
        rainy = render_rain(clean, Rain(layers, blend=blend), np.random.default_rng(0))
        return float((rainy.astype(int) - clean).mean())

    assert added(gray, "screen") < added(gray, "additive")
    assert added(white, "screen") == pytest.approx(added(gray, "screen") * 5 / 155, rel=0.2)
    saturated = render_rain(white, Rain(layers), np.random.default_rng(0))
    assert saturated.max() == 255


def test_mist_blends_towards_the_airlight():
    clean = np.full((400, 400, 3), 50, np.uint8)
    rainy = render_rain(clean, Rain((), mist=1.0, airlight=0.8), np.random.default_rng(0))
    # t = exp(-thickness), thickness between 0.5 and 1.5 of the mean
    veiled = [50 * t + 0.8 * 255 * (1 - t) for t in np.exp([-0.5, -1.5])]
    assert veiled[0] - 1 <= rainy.min() < rainy.max() <= veiled[1] + 1
    assert np.abs(np.diff(rainy[..., 0].astype(int), axis=0)).max() <= 2  # it changes slowly


def test_thick_mist_is_the_airlight():
    rainy = render_rain(_clean(), Rain((), mist=60, airlight=0.6), np.random.default_rng(0))
    assert np.unique(rainy).tolist() == [153]
