"""Command compare_page.py: contact sheet and web page."""

from __future__ import annotations

import base64
import importlib.util
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from basicsr.io.images import read_image, write_png
from basicsr.metrics import measure

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def compare_page():
    spec = importlib.util.spec_from_file_location("compare_page", ROOT / "scripts/compare_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folders(tmp_path) -> dict[str, Path]:
    """Write two gradients; a bright streak is strong in lq and weak in the restored image."""
    for number, size in ((1, (48, 64)), (2, (64, 48))):
        gt = np.tile(np.linspace(40, 160, size[1]).astype(np.uint8)[:, None], (size[0], 1, 3))
        lq, restored = gt.copy(), gt.copy()
        lq[:, 10:13] = 200
        restored[:, 10:13] += 8
        for name, image in (("lq", lq), ("restored", restored), ("gt", gt)):
            write_png(tmp_path / name / f"street & <{number}>.png", image)
    return {name: tmp_path / name for name in ("lq", "restored", "gt", "out")}


def arguments(folders: dict[str, Path], *names: str) -> list[str]:
    return [part for name in names for part in (f"--{name}", str(folders[name]))]


def test_sheet_and_page(compare_page, folders, capsys) -> None:
    compare_page.main([*arguments(folders, "lq", "restored", "gt", "out"), "--title", "A & B"])
    assert "2 images" in capsys.readouterr().out
    sheet = read_image(folders["out"] / "sheet.png")
    assert sheet.shape[1] == 14 + 4 * (420 + 14)
    page = (folders["out"] / "index.html").read_text()
    assert "<title>A &amp; B</title>" in page
    assert "street &amp; &lt;1&gt;" in page
    assert "<2>" not in page
    scores = [
        measure(
            *(read_image(folders[k] / f"street & <{number}>.png") for k in (version, "gt")),
            "matlab_y",
        )
        for number in (1, 2)
        for version in ("lq", "restored")
    ]
    for psnr, ssim in (each.values() for each in scores):
        assert f"<td>{psnr:.2f} dB</td><td>{ssim:.4f}</td>" in page
    mean = (scores[1]["psnr"] + scores[3]["psnr"]) / 2
    assert f"{mean:.2f} dB restored" in page
    assert "<b>matlab_y</b>" in page


def test_several_restored_versions(compare_page, folders) -> None:
    """Captions head the columns; every version has its scores and place in the page."""
    compare_page.main(
        [
            *("--lq", f"rainy={folders['lq']}", "--gt", f"clean={folders['gt']}"),
            *("--restored", f"first={folders['restored']}", f"A & B={folders['lq']}"),
            *("--out", str(folders["out"])),
        ]
    )
    assert read_image(folders["out"] / "sheet.png").shape[1] == 14 + 4 * (420 + 14)
    page = (folders["out"] / "index.html").read_text()
    assert re.findall(r'value="(\d)"( checked)?>([^<]*)</label>', page) == [
        ("0", " checked", "first"),
        ("1", "", "A &amp; B"),
        ("2", "", "clean"),
    ]
    assert page.count('data-version="2"') == 2
    assert "change" not in page.partition("<main>")[2].partition("<script>")[0]
    head = re.search(r"<thead>(.*)</thead>", page)
    assert re.findall("<th>([^<]*)</th>", head[1]) == [
        "image",
        *("rainy PSNR", "rainy SSIM", "first PSNR", "first SSIM"),
        *("A &amp; B PSNR", "A &amp; B SSIM"),
    ]
    first = page[page.index("<td>street") :].partition("</tr>")[0]
    numbers = re.findall(r"<td>([\d.]+)(?: dB)?</td>", first)
    assert numbers[:2] == numbers[4:]  # the degraded image itself
    assert float(numbers[2]) > float(numbers[0])


def test_sixteen_bit_images_are_measured_as_they_are(compare_page, folders) -> None:
    gt = np.full((48, 64, 3), 20000, np.uint16)
    for name, image in (("lq", gt + 40), ("restored", gt + 4), ("gt", gt)):
        for file in folders[name].glob("*"):
            file.unlink()
        write_png(folders[name] / "0.png", image)
    compare_page.main([*arguments(folders, "lq", "restored", "gt", "out"), "--protocol", "dpdd"])
    page = (folders["out"] / "index.html").read_text()
    assert "<td>64.29 dB</td>" in page
    assert "<td>84.29 dB</td>" in page


def test_two_folders_with_one_caption(compare_page, folders, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        compare_page.main(
            [*arguments(folders, "lq", "restored", "out"), "--gt", f"restored={folders['gt']}"]
        )
    assert capsys.readouterr().err == (
        "error: two folders have the caption 'restored'; use CAPTION=DIR\n"
    )


def test_page_needs_nothing_else(compare_page, folders) -> None:
    compare_page.main(arguments(folders, "lq", "restored", "gt", "out"))
    page = (folders["out"] / "index.html").read_text()
    assert "http:" not in page
    assert "https:" not in page
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 2 * 4
    head = "data:image/jpeg;base64,"
    assert all(source.startswith(head) for source in sources)
    first = Image.open(io.BytesIO(base64.b64decode(sources[0].removeprefix(head))))
    lq = read_image(folders["lq"] / "street & <1>.png")
    assert np.abs(np.asarray(first).astype(int) - lq).mean() < 3
    assert page.count('<input type="range"') == 2


def test_without_ground_truth(compare_page, folders) -> None:
    compare_page.main(
        [*arguments(folders, "lq", "restored", "out"), "--max-images", "1"],
    )
    assert read_image(folders["out"] / "sheet.png").shape[1] == 14 + 3 * (420 + 14)
    page = (folders["out"] / "index.html").read_text()
    assert "nothing is measured" in page
    assert "<table>" not in page
    assert len(re.findall(r'src="', page)) == 3


def test_change_map(compare_page) -> None:
    before = np.full((1, 3, 3), 100, np.uint8)
    after = before.copy()
    after[0, 1, 2] = 90
    after[0, 2] = 255
    colours = compare_page.change_map(before, after).astype(int)
    brightness = colours.sum(axis=2)[0]
    assert brightness[0] < 10
    assert brightness[0] < brightness[1] < brightness[2]
    np.testing.assert_array_equal(colours, compare_page.change_map(after, before))


def test_noise_is_embedded(compare_page) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    assert compare_page._embedded(noise).startswith("data:image/jpeg;base64,/9j/")


def test_errors_are_one_line(compare_page, folders, capsys) -> None:
    write_png(folders["restored"] / "street & <1>.png", np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(SystemExit, match="2"):
        compare_page.main(arguments(folders, "lq", "restored", "gt", "out"))
    assert capsys.readouterr().err == (
        "error: street & <1>: the images to compare differ in size "
        "(degraded 64x48, restored 30x20, ground truth 64x48)\n"
    )
