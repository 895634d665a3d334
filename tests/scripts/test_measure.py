"""Command measure.py: table, JSON file and errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from basicsr.evaluation.restored_images import match_restored
from basicsr.io.images import read_image, write_png
from basicsr.io.mat_blocks import write_sidd_result
from basicsr.metrics import measure
from basicsr.utils.errors import DataError


def random_image(seed: int, height: int = 40, width: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """Write three pairs with names of Rain100L; the last two images are identical."""
    restored, gt = tmp_path / "restored", tmp_path / "gt"
    for number in (1, 2, 3):
        write_png(restored / f"rain-{number:03}.png", random_image(number if number < 3 else 99))
        write_png(gt / f"norain-{number:03}.png", random_image(number + 10 if number < 3 else 99))
    return restored, gt


def test_scores_of_a_layout(run_script, folders, tmp_path) -> None:
    restored, gt = folders
    file = tmp_path / "scores.json"
    code, printed, _ = run_script(
        "measure",
        *("--restored", restored, "--gt", gt, "--layout", "Rain100L", "--json", file),
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
    restored, gt = folders
    write_png(restored / "rain-002.png", random_image(2, 40, 40))
    code, printed, complaint = run_script(
        "measure", "--restored", restored, "--gt", gt, "--layout", "Rain100L"
    )
    assert (code, printed) == (2, "")
    assert complaint.splitlines()[-1] == (
        f"error: {restored}/rain-002.png against {gt}/norain-002.png: restored image is 40 x 40 "
        "(RGB), target is 48 x 40 (RGB): only images of one size can be compared"
    )


def test_unpaired_files(folders) -> None:
    restored, gt = folders
    (gt / "norain-003.png").unlink()
    with pytest.raises(DataError) as error:
        match_restored(restored, gt, "Rain100L")
    assert str(error.value) == (
        f"1 without a partner in {restored} (rain-003.png); expected rain-001.png with "
        "norain-001.png (a layout sets other rules)"
    )
    with pytest.raises(DataError, match=r"3 without a partner in .*\(rain-001.png, ...\) and 2 wi"):
        match_restored(restored, gt)


def test_ground_truth_beside_degraded_images(folders) -> None:
    """A flat Rain100L folder: degraded images in it are not reported as unpaired."""
    restored, gt = folders
    for path in restored.iterdir():
        write_png(gt / path.name, random_image(0))
    pairs = match_restored(restored, gt, "Rain100L")
    assert [pair.gt.name for pair in pairs] == [f"norain-00{number}.png" for number in (1, 2, 3)]


@pytest.mark.parametrize(("layout", "gt_half"), [("Rain800", 0), ("DID-MDN", 1)])
def test_ground_truth_in_halves_of_files(tmp_path, layout, gt_half) -> None:
    halves = random_image(0), random_image(1)
    write_png(tmp_path / "restored/7.png", random_image(2))
    write_png(tmp_path / "both/7.png", np.concatenate(halves, axis=1))
    (pair,) = match_restored(tmp_path / "restored", tmp_path / "both", layout)
    restored, gt = pair.read()
    np.testing.assert_array_equal(restored, read_image(tmp_path / "restored/7.png"))
    np.testing.assert_array_equal(gt, halves[gt_half])


def test_blocks_of_sidd(run_script, tmp_path, monkeypatch) -> None:
    """The network's output is not rounded, and its type decides the peak."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    gt = np.random.default_rng(0).integers(0, 90, (2, 3, 12, 14, 3), dtype=np.uint8)
    noise = np.random.default_rng(1).normal(0, 0.02, gt.shape)
    restored = (gt / 255 + noise).astype(np.float32)
    savemat(tmp_path / "Gt.mat", {"ValidationGtBlocksSrgb": gt})
    write_sidd_result(tmp_path / "Idenoised.mat", restored)
    command = ("measure", "--restored", tmp_path / "Idenoised.mat", "--protocol", "sidd", "--gt")
    code, printed, _ = run_script(*command, tmp_path / "Gt.mat", "--json", tmp_path / "s.json")
    assert code == 0
    assert printed.startswith("| images | protocol | PSNR | SSIM-3D |")
    assert "of image files" not in printed
    document = json.loads((tmp_path / "s.json").read_text())
    assert document["results"][0]["images"] == 6
    assert document["images"][4] == {
        "image": "02_02",
        "sidd": measure(restored[1, 1], gt[1, 1], "sidd"),
    }
    savemat(tmp_path / "Gt.mat", {"ValidationGtBlocksSrgb": gt[:1]})
    code, _, complaint = run_script(*command, tmp_path / "Gt.mat")
    assert (code, "Idenoised.mat has blocks of (2, 3, 12, 14, 3) but" in complaint) == (2, True)


def test_16_bit_files_can_be_read_as_8_bit_ones(run_script, tmp_path) -> None:
    rng = np.random.default_rng(0)
    restored, gt = (rng.integers(0, 65536, (12, 14, 3)).astype(np.uint16) for _ in range(2))
    write_png(tmp_path / "restored/1.png", restored)
    write_png(tmp_path / "gt/1.png", gt)
    command = ("measure", "--restored", tmp_path / "restored", "--gt", tmp_path / "gt")
    command = (*command, "--protocol", "dpdd", "--json", tmp_path / "s.json", "--bit-depth")
    assert run_script(*command, "as_stored")[0] == 0
    document = json.loads((tmp_path / "s.json").read_text())
    assert document["images"][0]["dpdd"] == measure(restored, gt, "dpdd")
    assert run_script(*command, "8")[0] == 0
    document = json.loads((tmp_path / "s.json").read_text())
    both = (read_image(tmp_path / folder / "1.png") for folder in ("restored", "gt"))
    assert document["images"][0]["dpdd"] == measure(*both, "dpdd")


def test_failed_alignments_are_counted(run_script, folders, tmp_path) -> None:
    """Images of noise do not align; the third one is identical with its ground truth."""
    restored, gt = folders
    file = tmp_path / "scores.json"
    code, printed, _ = run_script(
        *("measure", "--restored", restored, "--gt", gt, "--layout", "Rain100L"),
        *("--protocol", "realblur", "--json", file),
    )
    assert code == 0
    assert "realblur: 2 of 3 images: alignment failed (ECC did not converge" in printed
    document = json.loads(file.read_text())
    assert document["results"][0]["unaligned"] == 2
    assert [image["realblur"]["unaligned"] for image in document["images"]] == [1, 1, 0]


def test_a_subset(run_script, folders, tmp_path) -> None:
    restored, gt = folders
    (restored / "rain-001.png").unlink()
    (gt / "norain-002.png").unlink()
    file = tmp_path / "scores.json"
    common = ("measure", "--restored", restored, "--gt", gt, "--layout", "Rain100L")
    code, _, complaint = run_script(*common)
    assert code == 2
    assert "1 without a partner in" in complaint
    code, printed, _ = run_script(*common, "--allow-missing", "--json", file)
    assert code == 0
    assert "| 1 | matlab_y | inf | 1.000000 |" in printed
    assert [image["image"] for image in json.loads(file.read_text())["images"]] == ["rain-003"]
    (gt / "norain-003.png").unlink()
    code, _, complaint = run_script(*common, "--allow-missing")  # no pair is left
    assert code == 2
    assert complaint.startswith("error: ")


def test_skipped_files_are_reported(folders, caplog) -> None:
    restored, gt = folders
    (gt / "norain-002.png").unlink()
    assert len(match_restored(restored, gt, "Rain100L", allow_missing=True)) == 2
    assert caplog.messages == [
        f"1 without a partner in {restored} (rain-002.png); 2 pairs are left"
    ]


def test_without_ground_truth(run_script, tmp_path) -> None:
    image = random_image(5, 200, 196)
    write_png(tmp_path / "restored/a.png", image)
    file = tmp_path / "scores.json"
    common = ("measure", "--restored", tmp_path / "restored", "--json", file, "--protocol")
    code, printed, _ = run_script(*common, "niqe")
    assert code == 0
    niqe = measure(image, protocol="niqe")["niqe"]
    assert printed.splitlines()[:3] == [
        "| images | protocol | NIQE |",
        "| --- | --- | --- |",
        f"| 1 | niqe | {niqe:.5f} |",
    ]
    assert json.loads(file.read_text())["provenance"]["gt"] is None
    code, _, complaint = run_script(*common, "niqe", "rgb")
    assert (code, complaint) == (
        2,
        "error: --protocol rgb: needs the ground truth; give --gt DIR\n",
    )
    code, _, complaint = run_script(*common, "nique")
    assert (code, "no protocol is called 'nique' (did you mean 'niqe'?)" in complaint) == (2, True)


def test_gray_and_16_bit_files(run_script, tmp_path) -> None:
    """The ground truth of a gray image is read in gray; 16-bit files keep their levels."""
    gray, rgb = random_image(1)[..., 0], random_image(2)
    write_png(tmp_path / "restored/1.png", gray)
    write_png(tmp_path / "gt/1.png", rgb)
    levels = np.random.default_rng(3).integers(0, 65536, (2, 40, 48, 3)).astype(np.uint16)
    write_png(tmp_path / "restored/2.png", levels[0])
    write_png(tmp_path / "gt/2.png", levels[1])
    first, second = match_restored(tmp_path / "restored", tmp_path / "gt")
    restored, gt = first.read()
    np.testing.assert_array_equal(restored, gray[..., None])
    np.testing.assert_array_equal(gt, read_image(tmp_path / "gt/1.png", "gray"))
    for read, written in zip(second.read(), levels, strict=True):
        np.testing.assert_array_equal(read, written)
    assert [image.dtype for image in second.read("rgb", 8)] == [np.uint8, np.uint8]


def test_unknown_layout(folders) -> None:
    with pytest.raises(DataError, match=r"no layout is called 'Rain10L' \(did you mean 'Rain1"):
        match_restored(*folders, "Rain10L")
