"""Protocols of the deraining literature against the authors' numbers and plain formulas, and
properties of all protocols."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate2d

from basicsr.io.images import read_image
from basicsr.metrics import Metric, Protocol, get_protocol, get_score, measure
from basicsr.metrics.full_reference import PSNR
from basicsr.utils.errors import DataError, OptionsError

ON_8_BITS = ("matlab_y", "matlab_y_double", "rgb")
FULL_REFERENCE = (*ON_8_BITS, "dtpnet")


def image(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Return waves with noise, uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 7 + c) + np.cos(y / 5 - c) for c in range(channels)]
    levels = 128 + 40 * np.stack(waves, axis=2) + rng.normal(0, 6, (height, width, channels))
    return np.clip(levels, 0, 255).astype(np.uint8)


def noisy(gt: np.ndarray, sigma: float, seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 1, gt.shape)
    return np.clip(gt + sigma * noise, 0, 255).round().astype(np.uint8)


def reference_ssim(a: np.ndarray, b: np.ndarray, peak: float, mode: str = "valid") -> float:
    """Return Wang's index by its two-dimensional window and five maps."""
    y, x = np.mgrid[-5:6, -5:6]
    window = np.exp(-(x**2 + y**2) / (2 * 1.5**2))
    window /= window.sum()
    mean_a, mean_b, aa, bb, ab = (correlate2d(m, window, mode) for m in (a, b, a * a, b * b, a * b))
    var_a, var_b, cov = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    upper = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    return float((upper / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())


def reference_luma(rgb: np.ndarray) -> np.ndarray:
    """Compute the luma of RGB in [0, 255]."""
    r, g, b = np.moveaxis(rgb / 255.0, 2, 0)
    return 65.481 * r + 128.553 * g + 24.966 * b + 16


def reference_psnr(a: np.ndarray, b: np.ndarray, peak: float) -> float:
    return 20 * math.log10(peak / math.sqrt(((a - b) ** 2).mean()))


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> list[dict[str, str]]:
    with (Path(os.environ["DERAIN_SHARED"]) / "golden/metrics_rain100l.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.shared_data
def test_some_of_rain100l_as_the_authors_measure_it(golden, shared_data) -> None:
    _assert_as_published(golden[7::31], shared_data)


@pytest.mark.shared_data
@pytest.mark.slow
def test_all_of_rain100l_as_the_authors_measure_it(golden, shared_data) -> None:
    assert len(golden) == 100
    _assert_as_published(golden, shared_data)


def _assert_as_published(rows: list[dict[str, str]], data: Path) -> None:
    for row in rows:
        lq = read_image(data / "Rain100L/rainy" / row["image"])
        gt = read_image(data / "Rain100L/norain" / f"no{row['image']}")
        for protocol in ("matlab_y", "matlab_y_double", "dtpnet"):
            psnr, ssim = measure(lq, gt, protocol).values()
            assert psnr == pytest.approx(float(row[f"{protocol}_psnr"]), abs=1e-4), row["image"]
            assert ssim == pytest.approx(float(row[f"{protocol}_ssim"]), abs=1e-6), row["image"]


def test_matlab_y_against_the_formulas() -> None:
    gt = image(40, 53)
    restored = noisy(gt, 9)
    a, b = (np.floor(reference_luma(x) + 0.5) for x in (restored, gt))
    psnr, ssim = measure(restored, gt, "matlab_y").values()
    assert psnr == pytest.approx(reference_psnr(a, b, 255), abs=1e-9)
    assert ssim == pytest.approx(reference_ssim(a, b, 255), abs=1e-12)


def test_luma_is_rounded_half_up_at_an_exact_tie() -> None:
    """(65481 r + 128553 g + 24966 b) / 255000 ends in exactly one half for these levels."""
    tie = next(
        (r, g, b)
        for r in range(0, 256, 5)
        for g in range(0, 256, 5)
        for b in range(256)
        if (65481 * r + 128553 * g + 24966 * b) % 255000 == 127500
    )
    luma = 16 + (65481 * tie[0] + 128553 * tie[1] + 24966 * tie[2]) // 255000 + 1
    colour = np.full((11, 11, 3), tie, np.uint8)
    gray_of_that_luma = np.full((11, 11), luma, np.uint8)
    black = np.zeros((11, 11, 3), np.uint8)
    expected = 20 * math.log10(255 / (int(gray_of_that_luma[0, 0]) - 16))
    assert measure(colour, black, "matlab_y")["psnr"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("side", "factor"), [(383, 1), (384, 2), (640, 3), (896, 4)])
def test_matlab_y_double_downsamples_as_imfilter_does(side, factor) -> None:
    gt = image(side, side + 3)
    restored = noisy(gt, 9)
    a, b = reference_luma(restored), reference_luma(gt)
    before, after = (factor - 1) // 2, factor // 2  # of imfilter's box, around its centre
    small = []
    for y in (a, b):
        padded = np.pad(y, ((before, after), (before, after)), mode="symmetric")
        boxes = np.lib.stride_tricks.sliding_window_view(padded, (factor, factor))
        small.append(boxes.mean(axis=(2, 3))[::factor, ::factor])
    psnr, ssim = measure(restored, gt, "matlab_y_double").values()
    assert psnr == pytest.approx(reference_psnr(a, b, 255), abs=1e-9)
    assert ssim == pytest.approx(reference_ssim(*small, 255), abs=1e-11)


def test_rgb_against_the_formulas() -> None:
    gt = image(30, 44)
    restored = noisy(gt, 9)
    a, b = restored.astype(float), gt.astype(float)
    psnr, ssim = measure(restored, gt, "rgb").values()
    assert psnr == pytest.approx(reference_psnr(a, b, 255), abs=1e-9)
    channels = [reference_ssim(a[..., c], b[..., c], 255) for c in range(3)]
    assert ssim == pytest.approx(np.mean(channels), abs=1e-12)


def test_dtpnet_crops_clamps_and_does_not_round() -> None:
    gt = image(70, 100)
    restored = noisy(gt, 9) / 255.0 + 0.4 / 255
    restored[:20] += 1
    a, b = np.clip(restored, 0, 1)[:64, :96], gt[:64, :96] / 255.0
    psnr, ssim = measure(restored, gt, "dtpnet").values()
    assert psnr == pytest.approx(reference_psnr(a, b, 1), abs=1e-9)
    channels = [reference_ssim(a[..., c], b[..., c], 1, "same") for c in range(3)]
    assert ssim == pytest.approx(np.mean(channels), abs=1e-5)  # published in single precision


@pytest.mark.parametrize("protocol", ON_8_BITS)
def test_floats_are_rounded_to_8_bits(protocol) -> None:
    gt = image(20, 24)
    restored = noisy(gt, 9)
    shifted = restored / 255.0 + 0.4 / 255
    assert measure(shifted, gt / 255.0, protocol) == measure(restored, gt, protocol)
    beyond = np.where(restored > 128, 1.7, -0.3)
    assert measure(beyond, gt, protocol) == measure(np.clip(beyond, 0, 1), gt, protocol)


def test_gray_has_no_colour_conversion() -> None:
    gt = image(40, 40, channels=1)
    restored = noisy(gt, 9)
    a, b = restored[..., 0].astype(float), gt[..., 0].astype(float)
    expected = [reference_psnr(a, b, 255), reference_ssim(a, b, 255)]
    for protocol in ON_8_BITS:
        assert list(measure(restored, gt, protocol).values()) == pytest.approx(expected, abs=1e-9)
        assert measure(restored[..., 0], gt, protocol) == measure(restored, gt, protocol)


@pytest.mark.parametrize("protocol", FULL_REFERENCE)
@pytest.mark.parametrize("channels", [1, 3])
def test_identical_images(protocol, channels) -> None:
    gt = image(33, 47, channels)
    assert measure(gt, gt.copy(), protocol) == {"psnr": math.inf, "ssim": 1.0}


@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(32, 70),
    width=st.integers(32, 70),
    sigma=st.floats(1, 60),
    seed=st.integers(0, 1000),
    protocol=st.sampled_from(FULL_REFERENCE),
)
def test_symmetry_range_and_order(height, width, sigma, seed, protocol) -> None:
    """Scores are symmetric, in range, worse with more noise, and independent of flips."""
    gt = image(height, width, seed=seed)
    restored, worse = noisy(gt, sigma, seed), noisy(gt, 2 * sigma, seed)
    scores = measure(restored, gt, protocol)
    rounding = 5e-5 if protocol == "dtpnet" else 1e-6  # its SSIM is computed in float32
    assert measure(gt, restored, protocol) == pytest.approx(scores, abs=rounding)
    assert -1 <= scores["ssim"] < 1
    lower = measure(worse, gt, protocol)
    assert lower["psnr"] < scores["psnr"]
    assert lower["ssim"] < scores["ssim"]
    if protocol == "dtpnet":  # what it crops away lies at the right and bottom
        height, width = height // 32 * 32, width // 32 * 32
        restored, gt = restored[:height, :width], gt[:height, :width]
    for axis in (0, 1):
        flipped = measure(np.flip(restored, axis), np.flip(gt, axis), protocol)
        assert flipped == pytest.approx(scores, abs=rounding)


@pytest.mark.parametrize(("protocol", "side"), [*((p, 11) for p in ON_8_BITS), ("dtpnet", 32)])
def test_too_small_for_the_protocol(protocol, side) -> None:
    big_enough, too_small = image(side, 40), image(side - 1, 40)
    assert measure(noisy(big_enough, 5), big_enough, protocol)["psnr"] > 20
    with pytest.raises(DataError) as error:
        measure(too_small, too_small, protocol)
    assert str(error.value) == (
        f"protocol '{protocol}' is undefined for an image of 40 x {side - 1} (RGB): "
        f"it needs at least {side} x {side} pixels"
    )


def test_images_of_different_size() -> None:
    with pytest.raises(DataError, match=r"restored image is 40 x 30 \(RGB\), target is 30 x 40"):
        measure(image(30, 40), image(40, 30))
    with pytest.raises(DataError, match=r"40 x 30 \(RGB\), target is 40 x 30 \(gray\)"):
        measure(image(30, 40), image(30, 40, 1))


@pytest.mark.parametrize(
    ("restored", "message"),
    [
        (np.zeros((20, 20, 4), np.uint8), r"restored image has the shape \(20, 20, 4\)"),
        (np.zeros((20, 20, 3), np.int32), "restored image holds int32; expected uint8, uint16"),
        (np.full((20, 20, 3), np.nan), "restored image holds values that are not finite"),
        (np.full((20, 20, 3), 255.0), r"image holds floats up to 255; expected \[0, 1\]: divide"),
    ],
)
def test_arrays_that_are_not_images(restored, message) -> None:
    with pytest.raises(DataError, match=message):
        measure(restored, image(20, 20))


def test_unknown_protocol() -> None:
    with pytest.raises(OptionsError, match=r"no protocol is called 'mat_y' \(did you mean 'matl"):
        measure(image(20, 20), image(20, 20), "mat_y")


@pytest.mark.parametrize("protocol", FULL_REFERENCE)
def test_the_type_decides_the_peak(protocol) -> None:
    """The peak of dark images is not guessed from their values."""
    gt = image(40, 44)
    restored = noisy(gt, 9)
    expected = measure(restored, gt, protocol)
    wide = [x.astype(np.uint16) * 257 for x in (restored, gt)]
    assert measure(*wide, protocol) == pytest.approx(expected, abs=1e-9)
    assert measure(wide[0], gt / 255, protocol) == pytest.approx(expected, abs=1e-9)
    dark = np.zeros((40, 44, 3), np.uint16)
    bright = dark + np.uint16(255 * 257)
    assert measure(bright, dark, "rgb")["psnr"] == pytest.approx(0, abs=1e-12)
    # 200 of 65535 is less than one 8-bit level
    psnr = measure(dark + np.uint16(200), dark, protocol)["psnr"]
    exact = 20 * math.log10(65535 / 200)
    reads_float = get_protocol(protocol).reads == "float"
    assert psnr == (pytest.approx(exact, abs=1e-9) if reads_float else rounded_psnr(protocol))


def rounded_psnr(protocol: str) -> float:
    """Return the PSNR of the 8-bit levels 1 and 0."""
    dark = np.zeros((40, 44, 3), np.uint8)
    return measure(dark + np.uint8(1), dark, protocol)["psnr"]


def test_ground_truth_that_is_missing() -> None:
    with pytest.raises(DataError) as error:
        measure(image(20, 20))
    assert str(error.value) == ("protocol 'matlab_y' compares with the ground truth; there is none")


def test_names_of_scores() -> None:
    protocol, metric = get_score("matlab_y/ssim")
    assert (protocol.name, metric.name, metric.decimals) == ("matlab_y", "ssim", 4)
    assert get_score("rgb")[1].name == "psnr"
    assert get_score("niqe")[1].better == "lower"
    with pytest.raises(OptionsError, match=r"'rgb' has no metric 'snr' \(did you mean 'psnr'\?\)"):
        get_score("rgb/snr")


def test_which_value_is_better() -> None:
    psnr, niqe = get_score("rgb/psnr")[1], get_score("niqe")[1]
    assert psnr.is_better(30.1, 30.0)
    assert not psnr.is_better(30.0, 30.0)
    assert niqe.is_better(3.0, 3.1)
    assert not niqe.is_better(3.1, 3.0)
    assert psnr.is_better(-5.0, None)
    assert not psnr.is_better(math.nan, None)
    assert not niqe.is_better(math.nan, 3.0)


def test_a_new_protocol() -> None:
    """A protocol defines a conversion and metrics; the base classes do the rest."""

    class MeanError(Metric):
        name = "mean_error"
        better = "lower"

        def __call__(self, restored, target, peak):
            return float(np.abs(restored - target).mean() / peak)

    class GreenOnly(Protocol):
        name = "green"
        description = "the green channel"
        metrics = (MeanError(), PSNR())
        reads = "float"

        def convert(self, image):
            return image[..., 1]

    restored, target = image(12, 14), image(12, 14, seed=1)
    difference = restored[..., 1] / 255 - target[..., 1] / 255
    assert GreenOnly()(restored, target) == {
        "mean_error": pytest.approx(np.abs(difference).mean()),
        "psnr": pytest.approx(-10 * math.log10((difference**2).mean())),
    }
