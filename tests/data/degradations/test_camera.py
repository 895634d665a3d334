from __future__ import annotations

import numpy as np
import pytest

from basicsr.data.degradations.camera import Camera, draw_camera, photograph


def _scene(level: int = 120, size: int = 96, channels: int = 3) -> np.ndarray:
    return np.full((size, size, channels), level, np.uint8)


def _taken(image: np.ndarray, seed: int = 0, **options) -> np.ndarray:
    (taken,) = photograph([image], Camera(**options), np.random.default_rng(seed))
    return taken


def _texture(channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(60, 190, (40, 52, channels), np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_without_processing_an_image_stays(channels):
    np.testing.assert_array_equal(_taken(_texture(channels)), _texture(channels))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("seed", range(20))
def test_images_of_one_scene_stay_equal_and_unwritten(seed, channels):
    rng = np.random.default_rng(seed)
    image = _texture(channels)
    one, two = photograph([image, image.copy()], draw_camera(rng), rng)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(image, _texture(channels))
    assert one.shape == image.shape
    assert one.dtype == np.uint8
    assert one.flags.c_contiguous


def test_a_photograph_is_a_function_of_the_seed():
    options = {"noise": 5.0, "jpeg_quality": 80}
    one, two, other = (_taken(_texture(), seed, **options) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


@pytest.mark.parametrize("grain", [1.0, 2.0])
def test_noise_depends_on_the_level(grain):
    for level in (50, 200):
        noise = _taken(_scene(level, 256), noise=3.0, shot_noise=6.0, grain=grain).astype(float)
        assert noise.std() == pytest.approx(np.sqrt(9 + 36 * level / 255), rel=0.06)
        assert noise.mean() == pytest.approx(level, abs=0.3)


@pytest.mark.parametrize("chroma", [0.0, 0.5, 1.0])
def test_channels_share_the_noise_that_is_not_chroma(chroma):
    noisy = _taken(_scene(size=256), noise=8.0, chroma=chroma).reshape(-1, 3)
    assert np.corrcoef(noisy.T)[0, 1] == pytest.approx(1 - chroma, abs=0.03)


def test_grains_are_larger_than_pixels():
    def correlation(grain: float) -> float:
        noisy = _taken(_scene(size=256), noise=8.0, grain=grain)[..., 0].astype(float)
        return float(np.corrcoef(noisy[:, 1:].ravel(), noisy[:, :-1].ravel())[0, 1])

    assert abs(correlation(1.0)) < 0.03
    assert correlation(2.0) > 0.3


def test_the_tone_curve_keeps_black_and_white():
    levels = np.array([0, 128, 255], np.uint8).reshape(1, 3, 1)
    assert _taken(levels, gamma=0.8).ravel().tolist() == [0, 147, 255]


def test_an_enlarged_photograph_has_less_detail():
    assert _taken(_texture(), enlargement=2.0).std() < 0.7 * _texture().std()


def test_sharpening_overshoots_at_edges():
    edge = _scene(100)
    edge[:, 48:] = 150
    sharp = _taken(edge, sharpening=1.0)
    assert sharp.min() < 95
    assert sharp.max() > 155
    assert (sharp[:, :40] == 100).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_compression_keeps_colours_and_loses_detail(channels):
    colour = np.full((40, 52, channels), [200, 90, 30][:channels], np.uint8)
    np.testing.assert_allclose(_taken(colour, jpeg_quality=95), colour, atol=3)
    # brightness: colours have half the resolution at any quality
    brightness = _texture(channels).mean(axis=2)
    loss = [
        np.abs(_taken(_texture(channels), jpeg_quality=quality).mean(axis=2) - brightness).mean()
        for quality in (60, 98)
    ]
    assert loss[0] > 1.5 * loss[1] > 0


def test_blocks_begin_anywhere():
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None] * 3, 64, axis=0)
    starts = set()
    for seed in range(40):
        steps = np.abs(np.diff(_taken(ramp, seed, jpeg_quality=5)[..., 0].astype(int), axis=1))
        starts.add(int(np.argmax([steps[:, start::8].mean() for start in range(8)])))
    assert len(starts) > 4


def test_every_step_is_drawn_and_left_out():
    cameras = [draw_camera(np.random.default_rng(seed)) for seed in range(200)]
    for name in ("gamma", "enlargement", "noise", "sharpening"):
        unused = getattr(Camera(), name)
        share = np.mean([getattr(camera, name) != unused for camera in cameras])
        assert 0.15 < share < 0.75, name
    qualities = [camera.jpeg_quality for camera in cameras]
    assert min(qualities) == 60
    assert max(qualities) == 98
