"""NIQE against golden values of the authors' release, and on a synthetic image."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage

from basicsr import metrics
from basicsr.io.images import read_image
from basicsr.metrics import get_protocol, measure
from basicsr.metrics.niqe import _halved
from basicsr.utils.errors import DataError

STABLE = (
    "protocols/niqe_i04.png",
    "samples/Rain200H/test/input/3.png",
    "samples/Rain200L/test/input/1.png",
    "samples/RainDrop/rain_image/2_rain.png",
    "samples/RainDrop/rain_image/3_rain.png",
)


def texture(height: int, width: int, seed: int = 5) -> np.ndarray:
    """Return smooth random colours at three scales, uint8."""
    rng = np.random.default_rng(seed)
    layers = [
        scipy.ndimage.gaussian_filter(rng.normal(0, 1, (height, width, 3)), (s, s, 0)) * s
        for s in (1, 4, 16)
    ]
    return np.clip(128 + 60 * sum(layers), 1, 254).astype(np.uint8)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", STABLE)
def test_golden_values(shared_data, name) -> None:
    shared = Path(os.environ["DERAIN_SHARED"])
    golden = shared / "golden/tasks"
    section = json.loads((golden / "protocols/protocols.json").read_text())["no_reference"]
    case = next(each for each in section["cases"] if each["image"] == name)
    file = golden / name if name.startswith("protocols") else shared / "data" / name
    assert case["share_of_flat_pixels"] == 0
    assert measure(read_image(file), protocol="niqe")["niqe"] == pytest.approx(
        case["niqe"], abs=section["tolerance"]["niqe"]
    )


def test_synthetic_image() -> None:
    """The value is this implementation's own, when it reproduced the golden values."""
    image = texture(210, 300)
    assert measure(image, protocol="niqe")["niqe"] == pytest.approx(6.43146552, abs=1e-6)
    # rows and columns beyond whole blocks of 96 do not count
    assert measure(image[:192, :288], protocol="niqe") == measure(image, protocol="niqe")
    # the ground truth does not count
    assert measure(image, 255 - image, "niqe") == measure(image, protocol="niqe")


def test_input_types_agree() -> None:
    image = texture(192, 192)
    expected = measure(image, protocol="niqe")
    assert measure(image / 255, protocol="niqe") == expected
    assert measure(image.astype(np.uint16) * 257, protocol="niqe") == expected
    gray = np.floor(image @ [0.298936021293775, 0.587043074451121, 0.114020904255103] + 0.5)
    assert measure(gray.astype(np.uint8), protocol="niqe") == expected


def test_a_blurred_image_is_worse() -> None:
    image = texture(288, 288)
    blurred = scipy.ndimage.gaussian_filter(image.astype(float), (3, 3, 0)).round().astype(np.uint8)
    protocol = get_protocol("niqe")
    metric = protocol.metrics[0]
    assert not protocol.needs_reference
    scores = [protocol(each)["niqe"] for each in (image, blurred)]
    assert metric.is_better(scores[0], scores[1])
    assert not metric.is_better(scores[1], scores[0])


def test_halving_keeps_straight_lines() -> None:
    """Antialiased bicubic interpolation reproduces linear functions away from the borders."""
    y, x = np.mgrid[:32, :48].astype(float)
    halved = _halved(3 * x - 2 * y)
    inner = (slice(3, -3), slice(3, -3))
    expected = 3 * (2 * np.mgrid[:16, :24][1] + 0.5) - 2 * (2 * np.mgrid[:16, :24][0] + 0.5)
    np.testing.assert_allclose(halved[inner], expected[inner], atol=1e-10)


def test_images_without_a_score() -> None:
    with pytest.raises(DataError, match=r"'niqe' is undefined .* at least 192 x 192 pixels"):
        measure(texture(191, 300), protocol="niqe")
    with pytest.raises(DataError, match="NIQE is undefined for an image whose blocks are flat"):
        measure(np.full((192, 192, 3), 7, np.uint8), protocol="niqe")


def test_parameters_come_with_their_licence() -> None:
    folder = Path(metrics.__file__).parent
    assert "copyright notice in its entirety" in (folder / "niqe_LICENSE.txt").read_text()
    assert (folder / "niqe_parameters.mat").stat().st_size == 8347


@pytest.mark.shared_data
def test_parameters_are_the_authors(shared_data) -> None:
    folder = Path(metrics.__file__).parent
    original = Path(os.environ["DERAIN_SHARED"]) / "data/niqe/modelparameters.mat"
    assert (folder / "niqe_parameters.mat").read_bytes() == original.read_bytes()
