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


@pytest.mark.parametrize(
    ("preset", "sum_of_levels"),
    [("light", 13839543), ("heavy", 17878899), ("mixed", 14361399), ("misty", 17679342)],
)
def test_the_rain_of_published_scores_stays(preset, sum_of_levels):
    sums = [
        int(render_rain(_clean(), preset, np.random.default_rng(seed)).sum()) for seed in range(3)
    ]
    # exact but for rounding on other processors
    assert sum(sums) == pytest.approx(sum_of_levels, rel=1e-6)


@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"none"}))
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


def test_the_preset_none_is_the_clean_image():
    rainy = render_rain(_clean(), "none", np.random.default_rng(0))
    np.testing.assert_array_equal(rainy, _clean())


def test_real_rain_has_streaks_from_one_to_many_pixels_wide():
    layers = [
        layer
        for seed in range(300)
        for layer in PRESETS["real"](np.random.default_rng(seed)).layers
    ]
    widths = [layer.width for layer in layers]
    assert min(widths) < 1
    assert max(widths) > 20
    assert min(layer.length for layer in layers) < 4
    assert max(layer.length for layer in layers) > 400
    assert 0.2 < np.mean([layer.defocus > 0 for layer in layers]) < 0.5


def test_real_rain_is_seldom_invisible_and_seldom_opaque():
    scores = [
        measure(render_rain(_clean(), "real", np.random.default_rng(seed)), _clean())["psnr"]
        for seed in range(60)
    ]
    assert np.mean(np.array(scores) > 38) < 0.25
    assert np.mean(np.array(scores) < 12) < 0.1


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


def test_streaks_spread_around_their_angle():
    def coherence(spread: float) -> float:
        down, right = np.gradient(_rain(300, spread=spread, length=40, width=6, density=0.3))
        across, along = (right**2).mean(), (down**2).mean()
        return float((across - along) / (across + along))

    assert coherence(0.1) > coherence(10) > coherence(40)


def test_even_streaks_are_brighter_at_their_ends():
    assert _rain(evenness=6).mean() == pytest.approx(_rain().mean() * (6 / 7) / (2 / 3), rel=0.02)


@pytest.mark.parametrize("defocus", [1.5, 5, 20])
def test_defocus_spreads_the_same_light(defocus):
    sharp, blurred = (_rain(400, defocus=radius, density=8) for radius in (0, defocus))
    assert blurred.mean() == pytest.approx(sharp.mean(), rel=0.06)
    assert blurred.std() < 0.9 * sharp.std()


@pytest.mark.parametrize("width", [11.9, 12.1, 30])
def test_wide_streaks_are_as_bright_and_as_wide_at_a_lower_resolution(width):
    layer = STREAKS._replace(width=width, length=120, density=0.02)
    light = np.mean(
        [draw_streaks(300, 300, layer, np.random.default_rng(seed)).mean() for seed in range(150)]
    )
    # area of a parabola along a Gaussian across, times the mean factors of length, width and peak
    along, across, factors = 2 / 3 * 120, 1.064 * width * 0.77, 1.02 * 0.8
    assert light == pytest.approx(0.02 / 1000 * 0.4 * along * across * factors, rel=0.15)


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


def test_drops_in_linear_light_are_as_bright_as_the_airlight():
    black, white = (np.full((64, 64, 3), level, np.uint8) for level in (0, 255))
    rain = Rain((STREAKS._replace(density=5),), blend="linear", airlight=0.7, tint=(1.0, 0.9, 0.8))
    on_black, on_white = (
        render_rain(clean, rain, np.random.default_rng(0)) for clean in (black, white)
    )
    np.testing.assert_allclose(on_black.max(axis=(0, 1)), 255 * 0.7 * np.array([1, 0.9, 0.8]), 0.35)
    assert (on_black <= np.rint(255 * 0.7 * np.array([1, 0.9, 0.8]))).all()
    assert on_white.min() >= 255 * 0.7 * 0.8 - 1
    assert on_white.min() < 250  # rain in front of a bright sky is dark
    gray = render_rain(black[..., :1], rain, np.random.default_rng(0))
    assert gray.shape == (64, 64, 1)
    assert gray.max() > 0


def test_the_veil_gets_thicker_towards_the_bottom():
    clean = np.zeros((400, 100, 3), np.uint8)
    rain = Rain((), mist=0.6, airlight=0.8, tint=(1.0, 1.0, 0.5))
    rows = {
        veil: render_rain(clean, rain._replace(veil=veil), np.random.default_rng(2)).mean(axis=1)
        for veil in (0.0, 1.0)
    }
    ratio = rows[1.0][:, 0] / rows[0.0][:, 0]
    assert ratio[:100].mean() < 0.85
    assert ratio[-100:].mean() > 1.15
    np.testing.assert_allclose(rows[1.0][:, 2], rows[1.0][:, 0] / 2, atol=1)


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
