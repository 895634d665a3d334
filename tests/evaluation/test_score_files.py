import json
import math

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
