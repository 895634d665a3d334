from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from basicsr.data import PairedImageDataset, SyntheticRainDataset
from basicsr.io.images import write_png


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    for i in range(3):
        image = np.random.default_rng(i).integers(80, 120, (48, 64, 3), dtype=np.uint8)
        write_png(tmp_path / "clean" / f"{i}.png", image)
    return tmp_path / "clean"


def test_one_copy_equals_the_data_set(run_script, photographs, tmp_path):
    out = tmp_path / "out"
    code, printed, _ = run_script(
        *("synthesize_rain", "--clean", photographs, "--output", out),
        *("--rain", "light", "--seed", 7, "--workers", 1),
    )
    assert code == 0
    assert f"3 pairs in {out} (layout Rain13K)" in printed
    psnr = float(printed.split("PSNR of the rainy images: ")[1].split(" dB")[0])
    assert 20 < psnr < 35
    written = PairedImageDataset(str(out), "Rain13K")
    shown = SyntheticRainDataset(str(photographs), rain="light", seed=7)
    assert written.names == shown.names
    for index in range(3):
        np.testing.assert_array_equal(written.sample(index).lq, shown.sample(index).lq)
        np.testing.assert_array_equal(written.sample(index).gt, shown.sample(index).gt)


def test_copies_share_a_clean_image(run_script, photographs, tmp_path):
    out = tmp_path / "out"
    code, printed, _ = run_script(
        *("synthesize_rain", "--clean", photographs, "--output", out),
        *("--rain", "heavy", "--copies", 2, "--workers", 1),
    )
    assert code == 0
    assert f"6 pairs in {out} (layout Rain1400)" in printed
    written = PairedImageDataset(str(out), "Rain1400")
    assert written.names == ["0_1", "0_2", "1_1", "1_2", "2_1", "2_2"]
    assert (written.sample(0).lq != written.sample(1).lq).any()
    np.testing.assert_array_equal(written.sample(0).gt, written.sample(1).gt)


def test_existing_files_are_not_overwritten(run_script, photographs):
    code, _, err = run_script("synthesize_rain", "--clean", photographs, "--output", photographs)
    assert code == 2
    assert err == (f"error: {photographs}: is not empty; choose another folder or empty it\n")


def test_presets_are_measured(run_script, photographs):
    code, printed, _ = run_script("measure_rain_presets", "--clean", photographs, "--workers", 1)
    assert code == 0
    rows = [line.split("|")[1:-1] for line in printed.splitlines() if line.startswith("| ")]
    assert [row[0].strip() for row in rows] == [
        "preset",
        "light",
        "heavy",
        "mixed",
        "misty",
        "real",
    ]
    light, heavy = float(rows[1][1]), float(rows[2][1])
    assert heavy < 18 < light
