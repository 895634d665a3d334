from __future__ import annotations

from pathlib import Path

import pytest

HEAD = "dataset,image,protocol,psnr,ssim,input_psnr,input_ssim\n"


@pytest.fixture
def result(tmp_path):
    """Write the PSNRs of images a, b, c, ...; the degraded images have 20 dB."""

    def write(name: str, *psnr: float, dataset: str = "Rain100L") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        rows = [f"{dataset},{'abcdef'[i]},matlab_y,{p},0.9,20,0.8\n" for i, p in enumerate(psnr)]
        (folder / "scores.csv").write_text(HEAD + "".join(rows))
        return folder

    return write


def test_the_worst_images_and_the_picture(run_script, result, tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn = {}
    ecdf = Axes.ecdf

    def noted(self, psnr, **look):
        drawn[look["label"]] = psnr
        return ecdf(self, psnr, **look)

    monkeypatch.setattr(Axes, "ecdf", noted)
    picture = tmp_path / "scores.png"
    code, printed, err = run_script(
        *("plot_scores", result("A", 33.0, 25.5, 30.0), result("B", 35.0, 31.0, 36.0)),
        *("--dataset", "Rain100L", "--worst", 2, "--out", picture),
    )
    assert (code, err) == (0, "")
    assert printed.splitlines()[2:] == [
        "| b | 20.00 | 25.50 | 31.00 |",
        "| c | 20.00 | 30.00 | 36.00 |",
    ]
    assert drawn == {
        "degraded: 20.00 dB": [20.0, 20.0, 20.0],
        "A: 29.50 dB": [33.0, 25.5, 30.0],
        "B: 34.00 dB": [35.0, 31.0, 36.0],
    }
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_another_metric_whose_input_was_not_measured(run_script, tmp_path):
    (tmp_path / "scores.csv").write_text(
        "dataset,image,protocol,psnr,ssim,niqe,input_psnr,input_ssim,input_niqe\n"
        "real,a,niqe,,,3.5,,,\nreal,b,niqe,,,7.25,,,\nreal,a,rgb,30,0.9,,20,0.5,\n"
    )
    picture = tmp_path / "scores.png"
    common = ("plot_scores", tmp_path, "--dataset", "real", "--out", picture, "--score")
    code, printed, _ = run_script(*common, "niqe")
    assert code == 0
    assert printed.splitlines()[2:] == ["| b | 7.250 |", "| a | 3.500 |"]  # lower is better
    code, printed, _ = run_script(*common, "rgb/ssim")
    assert printed.splitlines()[2:] == ["| a | 0.5000 | 0.9000 |"]
    code, _, err = run_script(*common, "rgb/niqe")
    assert (code, err) == (2, "error: protocol 'rgb' has no metric 'niqe'; it has psnr, ssim\n")


def test_results_that_do_not_compare(run_script, result, tmp_path):
    a, b = result("A", 33.0, 25.5), result("B", 35.0)
    options = ("--out", tmp_path / "x.png", "--dataset")
    code, _, err = run_script("plot_scores", a, b, *options, "Rain100L")
    assert code == 2
    assert "A and B were not tested on the same images of Rain100L" in err
    code, _, err = run_script("plot_scores", a, *options, "Rain100H")
    assert code == 2
    assert "scores.csv: has no PSNR of Rain100H (matlab_y); it has Rain100L (matlab_y)" in err
    code, _, err = run_script("plot_scores", tmp_path / "none", *options, "Rain100L")
    assert code == 2
    assert "none/scores.csv" in err
