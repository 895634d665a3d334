"""Protocols of deblurring and denoising against the numbers of published code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from basicsr.io.images import BitDepth, read_image
from basicsr.metrics import get_protocol, measure
from basicsr.utils.errors import DataError

GOLDEN = Path(os.environ.get("DERAIN_SHARED", "")) / "golden/tasks/protocols"
NAMES = ("gopro", "realblur", "dpdd", "gaussian", "sidd")


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> dict[str, Any]:
    return json.loads((GOLDEN / "protocols.json").read_text())


def read(name: str, bit_depth: BitDepth = "as_stored") -> np.ndarray:
    return read_image(GOLDEN / name, "as_stored", bit_depth)


def image(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Return smooth random colours, uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 9, channels)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return smooth.reshape(height, width, channels).clip(0, 255).round().astype(np.uint8)


def noisy(gt: np.ndarray, sigma: float = 9) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, sigma, gt.shape)
    return (gt + noise).clip(0, 255).round().astype(np.uint8)


@pytest.mark.shared_data
def test_gopro_and_sidd_as_matlab_measures(golden) -> None:
    singles = np.load(GOLDEN / "sidd_single.npz")
    by_case = {
        "sidd_noisy_single": [
            read(name) / np.float32(255) for name in ("sidd_noisy.png", "sidd_gt.png")
        ],
        "sidd_restored_single": [singles["restored"], singles["gt"]],
    }
    cases = golden["full_reference"]["cases"]
    assert len(cases) == 7
    for name, case in cases.items():
        images = by_case.get(name) or [read(case["result"]), read(case["target"])]
        scores = measure(*images, "sidd" if name in by_case else "gopro")
        assert scores == {
            "psnr": pytest.approx(case["psnr"], abs=1e-9),
            "ssim_3d": pytest.approx(case["ssim_3d"], abs=1e-12),
        }, name


@pytest.mark.shared_data
def test_realblur_as_its_authors_measure(golden) -> None:
    section = golden["realblur"]
    runs = {run["cv2"]: name for name, run in golden["versions"]["runs"].items()}
    run, tolerance = runs.get(cv2.__version__), section["tolerance"]
    if run is None:
        run, tolerance = runs["4.10.0"], tolerance["across_opencv_versions"]
    assert len(section["cases"]) == 6
    for name, case in section["cases"].items():
        scores = measure(read(case["result"]), read(case["target"]), "realblur")
        expected = case[run]
        assert scores == {
            "psnr": pytest.approx(float(expected["psnr"]), abs=tolerance["psnr"]),
            "ssim_gaussian": pytest.approx(expected["ssim"], abs=tolerance["ssim"]),
            "unaligned": 0,
        }, name


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("bit_depth", "numbers"), [(16, "expected_float64"), (8, "if_read_as_8_bit")]
)
def test_dpdd_as_restormer_measures(golden, bit_depth, numbers) -> None:
    for case in golden["dpdd"]["cases"].values():
        scores = measure(*(read(case[role], bit_depth) for role in ("result", "target")), "dpdd")
        scores.pop("lpips", None)
        assert scores == {
            "psnr": pytest.approx(case[numbers]["psnr"], abs=1e-6),
            "mae": pytest.approx(case[numbers]["mae"], abs=1e-8),
            "ssim_uniform": pytest.approx(case[numbers]["ssim"], abs=1e-8),
        }


def test_gaussian_is_one_psnr_over_the_channels() -> None:
    for channels in (1, 3):
        gt = image(30, 41, channels)
        restored = noisy(gt)
        restored[..., 0] = gt[..., 0]  # channels of different quality
        restored[0, 0] = 255 - gt[0, 0]
        error = restored.astype(float) - gt
        expected = 20 * np.log10(255) - 10 * np.log10((error**2).mean())
        assert measure(restored, gt, "gaussian") == {"psnr": pytest.approx(expected, abs=1e-9)}
        # a network's output is rounded to 8 bits, as its file would be
        output = (restored + np.float32(0.3)) / np.float32(255)
        assert measure(output, gt, "gaussian") == {"psnr": pytest.approx(expected, abs=1e-9)}


@pytest.mark.parametrize(("name", "rounds"), [("gopro", True), ("dpdd", False), ("sidd", False)])
def test_which_protocols_round_the_output(name, rounds) -> None:
    gt = image(20, 24)
    shifted = (noisy(gt) + np.float32(0.4)) / np.float32(255)
    rounded = measure(noisy(gt), gt, name)
    assert (measure(shifted, gt, name) == rounded) is rounds
    assert measure(shifted, gt, name) == measure(shifted, gt / 255, name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
def test_gray_16_bit_and_dark_images(name, channels) -> None:
    """The type decides which value is white, not the brightest pixel."""
    gt = image(40, 44, channels) // 9
    restored = noisy(gt, 2)
    expected = measure(restored, gt, name)
    wide = [each.astype(np.uint16) * 257 for each in (restored, gt)]
    assert measure(*wide, name) == pytest.approx(expected, abs=1e-9)
    assert measure(restored / 255, gt / 255, name) == pytest.approx(expected, abs=1e-9)
    if channels == 1:
        assert measure(restored[..., 0], gt[..., 0], name) == expected


@pytest.mark.parametrize(
    ("name", "smallest"), [("gopro", 1), ("realblur", 11), ("dpdd", 7), ("gaussian", 1)]
)
def test_tiny_images(name, smallest) -> None:
    gt = image(smallest, smallest)
    scores = measure(gt ^ 1, gt, name)
    assert 30 < scores["psnr"] < 70
    assert all(np.isfinite(list(scores.values())))
    if smallest > 1:
        with pytest.raises(DataError, match=f"needs at least {smallest} x {smallest} pixels"):
            measure(gt[1:], gt[1:], name)


def test_identical_images_of_dpdd() -> None:
    gt = image(20, 20)
    scores = measure(gt, gt, "dpdd")
    scores.pop("lpips", None)
    assert scores == {"psnr": 100, "ssim_uniform": 1, "mae": 0}


def test_variants_of_ssim_have_names_of_their_own() -> None:
    labels = {name: [m.label for m in get_protocol(name).metrics] for name in NAMES}
    assert labels == {
        "gopro": ["PSNR", "SSIM-3D"],
        "realblur": ["PSNR", "SSIM-GAUSSIAN"],
        "dpdd": ["PSNR", "SSIM-UNIFORM", "MAE", "LPIPS"],
        "gaussian": ["PSNR"],
        "sidd": ["PSNR", "SSIM-3D"],
    }
