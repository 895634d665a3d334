"""scripts/measure.py: its table, its file and its errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from basicsr.evaluation.restored_images import match_restored
from basicsr.io.images import read_image, write_png
from basicsr.metrics import measure
from basicsr.utils.errors import DataError


def random_image(seed: int, height: int = 40, width: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """Three pairs named as Rain100L's; the last are identical."""
    restored, clean = tmp_path / "restored", tmp_path / "clean"
    for number in (1, 2, 3):
        write_png(restored / f"rain-{number:03}.png", random_image(number if number < 3 else 99))
        write_png(
            clean / f"norain-{number:03}.png", random_image(number + 10 if number < 3 else 99)
        )
    return restored, clean


def test_scores_of_a_layout(run_script, folders, tmp_path) -> None:
    restored, clean = folders
    file = tmp_path / "scores.json"
    code, printed, _ = run_script(
        "measure",
        *("--restored", restored, "--gt", clean, "--layout", "Rain100L", "--json", file),
        *("--protocol", "matlab_y", "dtpnet", "--workers", 2),
    )
    assert code == 0
    assert "| 3 | matlab_y | inf |" in printed
    assert "test.py measures the unrounded output" in printed
    document = json.loads(file.read_text())
    assert [(r["protocol"], r["images"]) for r in document["results"]] == [
        ("matlab_y", 3),
        ("dtpnet", 3),
    ]
    assert document["provenance"]["layout"] == "Rain100L"
    for number, shown in enumerate(document["images"][:2], start=1):
        assert shown["image"] == f"rain-{number:03}"
        for protocol in ("matlab_y", "dtpnet"):
            scores = measure(random_image(number), random_image(number + 10), protocol)
            assert shown[protocol] == scores
    assert document["images"][2]["matlab_y"] == {"psnr": "inf", "ssim": 1.0}
    mean = np.mean([image["dtpnet"]["ssim"] for image in document["images"]])
    assert document["results"][1]["ssim"] == pytest.approx(mean)


def test_errors_are_one_line(run_script, folders) -> None:
    restored, clean = folders
    write_png(restored / "rain-002.png", random_image(2, 40, 40))
    code, printed, complaint = run_script(
        "measure", "--restored", restored, "--gt", clean, "--layout", "Rain100L"
    )
    assert (code, printed) == (2, "")
    assert complaint.splitlines()[-1] == (
        f"error: {restored}/rain-002.png against {clean}/norain-002.png: restored image is 40 x 40 "
        "(RGB), target is 48 x 40 (RGB): only images of one size can be compared"
    )


def test_files_left_over(folders) -> None:
    restored, clean = folders
    (clean / "norain-003.png").unlink()
    with pytest.raises(DataError) as error:
        match_restored(restored, clean, "Rain100L")
    assert str(error.value) == (
        f"1 without a partner in {restored} (rain-003.png); expected rain-001.png with "
        "norain-001.png (a layout sets other rules)"
    )
    with pytest.raises(DataError, match=r"3 without a partner in .*\(rain-001.png, ...\) and 2 wi"):
        match_restored(restored, clean)


def test_clean_images_beside_rainy_ones(folders) -> None:
    """A flat Rain100L folder: the rainy images in it are not left over."""
    restored, clean = folders
    for path in restored.iterdir():
        write_png(clean / path.name, random_image(0))
    pairs = match_restored(restored, clean, "Rain100L")
    assert [pair.gt.name for pair in pairs] == [f"norain-00{number}.png" for number in (1, 2, 3)]


@pytest.mark.parametrize(("layout", "clean_half"), [("Rain800", 0), ("DID-MDN", 1)])
def test_clean_halves_of_side_by_side_files(tmp_path, layout, clean_half) -> None:
    halves = random_image(0), random_image(1)
    write_png(tmp_path / "restored/7.png", random_image(2))
    write_png(tmp_path / "both/7.png", np.concatenate(halves, axis=1))
    (pair,) = match_restored(tmp_path / "restored", tmp_path / "both", layout)
    restored, clean = pair.read()
    np.testing.assert_array_equal(restored, read_image(tmp_path / "restored/7.png"))
    np.testing.assert_array_equal(clean, halves[clean_half])


def test_unknown_layout(folders) -> None:
    with pytest.raises(DataError, match=r"no layout is called 'Rain10L' \(did you mean 'Rain1"):
        match_restored(*folders, "Rain10L")
