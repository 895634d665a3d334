import json
import math

import pytest

from basicsr.evaluation.evaluate import ImageScores
from basicsr.evaluation.score_files import markdown, summary, write_results
from basicsr.metrics import get_protocol


def scores(psnr, ssim):
    return {"psnr": psnr, "ssim": ssim}


def image(name, psnr, ssim):
    return ImageScores(name, {"rgb": scores(psnr, ssim)}, {"rgb": scores(20.0, 0.5)})


MEASURED = {
    "Rain_A": [image("1", 30.0, 0.9), image("2", 34.0, 0.8)],
    "real": [],
    "Rain_B": [image("x", math.inf, 1.0)],
}


def test_means_count_every_image_once():
    mean = get_protocol("rgb").summarize([scores(30, 0.9), scores(33, 0.6)])
    assert mean == scores(31.5, 0.75)


def test_flags_are_counted_and_explained(tmp_path):
    def aligned(name, unaligned):
        values = {"psnr": 30.0, "ssim_gaussian": 0.9, "unaligned": unaligned}
        return ImageScores(name, {"realblur": values}, {"realblur": {**values, "unaligned": 1.0}})

    measured = {"RealBlur_J": [aligned("1", 0.0), aligned("2", 1.0), aligned("3", 1.0)]}
    means = summary(measured, ["realblur"])
    assert means[0].restored == {
        "psnr": pytest.approx(30),
        "ssim_gaussian": pytest.approx(0.9),
        "unaligned": 2,
    }
    table, _, of_input, _, of_restored = markdown(means).rsplit("\n", 4)
    assert table.splitlines()[0] == (
        "| data set | images | protocol | input PSNR | input SSIM-GAUSSIAN | PSNR | SSIM-GAUSSIAN |"
    )
    assert of_input.startswith("RealBlur_J, realblur: input: 3 of 3 images: alignment failed (ECC")
    assert of_restored.startswith("RealBlur_J, realblur: 2 of 3 images: alignment failed (ECC")
    write_results(tmp_path, "net", measured, means, {})
    document = json.loads((tmp_path / "scores.json").read_text())
    assert (document["results"][0]["unaligned"], document["results"][0]["input_unaligned"]) == (
        2,
        3,
    )
    assert document["protocols"]["realblur"]["flags"] == dict(get_protocol("realblur").flags)
    assert (tmp_path / "scores.csv").read_text().splitlines()[2] == (
        "RealBlur_J,2,realblur,30.00000000,0.90000000,1.00000000,30.00000000,0.90000000,1.00000000"
    )
    for name in ("scores.md", "scores.tex"):
        assert of_restored in (tmp_path / name).read_text()


def test_a_metric_that_was_left_out_has_no_column():
    values = {"psnr": 30.0, "ssim_uniform": 0.9, "mae": 0.02}
    means = summary({"DPDD": [ImageScores("1", {"dpdd": values}, {})]}, ["dpdd"])
    headings = markdown(means).splitlines()[0].split(" | ")
    assert headings[-3:] == ["PSNR", "SSIM-UNIFORM", "MAE |"]


def test_unmeasured_sets_have_no_row():
    rows = summary(MEASURED, ["rgb"])
    assert [(row.dataset, row.images) for row in rows] == [("Rain_A", 2), ("Rain_B", 1)]
    assert rows[0].restored["psnr"] == 32.0
    assert rows[0].degraded == scores(20.0, 0.5)
    assert markdown(rows).splitlines()[2] == (
        "| Rain_A | 2 | rgb | 20.00 | 0.5000 | 32.00 | 0.8500 |"
    )


def test_all_files_have_the_same_scores(tmp_path):
    write_results(tmp_path, "net", MEASURED, summary(MEASURED, ["rgb"]), {"device": "cpu"})
    document = json.loads((tmp_path / "scores.json").read_text())
    assert document["method"] == "net"
    assert document["provenance"] == {"device": "cpu"}
    assert document["results"][0]["psnr"] == 32.0
    assert document["results"][1]["psnr"] == "inf"
    assert (tmp_path / "scores.csv").read_text().splitlines() == [
        "dataset,image,protocol,psnr,ssim,input_psnr,input_ssim",
        "Rain_A,1,rgb,30.00000000,0.90000000,20.00000000,0.50000000",
        "Rain_A,2,rgb,34.00000000,0.80000000,20.00000000,0.50000000",
        "Rain_B,x,rgb,inf,1.00000000,20.00000000,0.50000000",
    ]
    assert (
        r"Rain\_A & 2 & rgb & 20.00 & 0.5000 & 32.00 & 0.8500 \\"
        in (tmp_path / "scores.tex").read_text()
    )
    assert "32.00" in (tmp_path / "scores.md").read_text()
