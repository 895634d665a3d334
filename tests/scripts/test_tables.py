from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from basicsr.evaluation.comparison import blocks
from basicsr.evaluation.entries import AS_PRINTED, published_entries
from basicsr.evaluation.evaluate import ImageScores
from basicsr.evaluation.score_files import summary, write_results
from basicsr.evaluation.task import Task
from basicsr.options import TestOptions as Options  # not a class of tests
from basicsr.options import load_options

ROOT = Path(__file__).parents[2]
TASK = ROOT / "Deraining"
PRENET = ROOT / "options" / "test" / "Deraining" / "PReNet_Rain100L.yml"

Measure = Callable[..., Path]


@pytest.fixture
def measured(tmp_path: Path) -> Measure:
    """Return a function that writes a scores.json in which all images have the same scores."""

    def write(
        scores: dict[str, tuple[float, float]],
        name: str = "mine",
        images: int = 100,
        dataset: str = "Rain100L",
        **network: object,
    ) -> Path:
        options = load_options(Options, PRENET).model_dump(mode="json")
        options["network_g"].update(network)
        options["datasets"]["test_1"]["name"] = dataset
        by_protocol = {
            protocol: dict(zip(("psnr", "ssim"), pair, strict=True))
            for protocol, pair in scores.items()
        }
        each = [ImageScores(str(i), by_protocol, by_protocol) for i in range(images)]
        facts = {
            "options": options,
            "weights_sha256": "1a2b3c4d" * 8,
            "device": "some_machine, 2 threads",
            "date": "2026-05-06T07:08:09+00:00",
        }
        folder = tmp_path / name
        folder.mkdir()
        rows = summary({dataset: each}, list(scores))
        write_results(folder, name, {dataset: each}, rows, facts)
        return folder / "scores.json"

    return write


def markdown_blocks(printed: str) -> dict[tuple[str, str], dict[str, list[str]]]:
    """Return rows by method, by the headings of protocol and block."""
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    protocol = title = ""
    for line in printed.splitlines():
        if line.startswith("## "):
            protocol = line.removeprefix("## ")
        elif line.startswith("### "):
            title = line.removeprefix("### ").partition(":")[0]
        elif line.startswith("| ") and not line.startswith("| ---"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            found.setdefault((protocol, title), {})[cells[0]] = cells[1:]
    return found


MATLAB_Y, MATLAB_Y_DOUBLE = "Protocol `matlab_y`", "Protocol `matlab_y_double`"


def test_published_rows_alone(run_script):
    code, printed, err = run_script("tables", "--table", "Rain100")
    assert (code, err) == (0, "")
    tables = markdown_blocks(printed)
    assert list(tables) == [
        (MATLAB_Y, "rain13k"),
        (MATLAB_Y_DOUBLE, "prenet"),
        ("Protocol `dtpnet`", "dtpnet_rain100"),
        ("As printed, protocols unlike", "dtpnet_rain100"),
    ]
    prenet = tables[MATLAB_Y_DOUBLE, "prenet"]
    assert prenet["method"] == [
        *("Rain100L PSNR (100 images)", "Rain100L SSIM"),
        *("Rain100H PSNR (100 images)", "Rain100H SSIM", "source"),
    ]
    assert prenet["PReNet"] == ["**37.48**", "**0.979**", "**29.46**", "**0.899**", "PReNet README"]
    # 0.977 twice on Rain100L: both are second
    assert prenet["PReNet_r"][:2] == ["<u>37.10</u>", "<u>0.977</u>"]
    assert prenet["PRN"][:2] == ["36.99", "<u>0.977</u>"]
    assert prenet["PRN_r"] == ["36.11", "0.973", "27.43", "0.874", "PReNet README"]
    printed_rows = tables["As printed, protocols unlike", "dtpnet_rain100"]
    assert "DTPNet" not in printed_rows
    assert printed_rows["Restormer"][4] == (
        "DTPNet README table; Rain100H: Restormer's own paper prints 31.46"
    )
    assert not any("*" in cell or "<u>" in cell for row in printed_rows.values() for cell in row)


@pytest.mark.parametrize(
    ("name", "rows", "as_printed"),
    [
        ("Deraining", 108, 44),
        ("Motion_Deblurring", 113, 23),
        ("Defocus_Deblurring", 47, 5),
        ("Denoising", 330, 82),
    ],
)
def test_every_published_row_is_in_one_block(name, rows, as_printed):
    task = Task.load(ROOT / name)
    published = published_entries(ROOT / name / "published_results.csv", task)
    seen = []
    for table in task.tables:
        for block in blocks(table, published, task):
            for row in block.rows:
                for entry in row.entries.values():
                    assert entry.protocol.name == block.protocol.name
                    assert entry.setting == block.setting
                    seen.append(entry)
    assert set(seen) == set(published)
    assert len(published) == rows
    assert sum(entry.protocol.name == AS_PRINTED for entry in published) == as_printed
    # our gray blind denoiser has no published rows to be compared with
    assert set(task.settings) - {entry.setting for entry in published} <= {"gray_blind"}


def test_dtpnets_own_rows_are_rgb_numbers():
    published = published_entries(TASK / "published_results.csv", Task.load(TASK))
    assert [e.protocol.name for e in published if e.method == "DTPNet"] == ["dtpnet"] * 5


def test_what_must_not_be_mixed_stands_apart():
    """Rows of one test set that are told apart by their training, copy of the images or SSIM."""

    def shown(name, table):
        task = Task.load(ROOT / name)
        published = published_entries(ROOT / name / "published_results.csv", task)
        return {
            (block.protocol.name, block.setting): {row.method: row for row in block.rows}
            for block in blocks(table, published, task)
        }

    def scores(row, dataset):
        return {metric: str(score) for metric, score in row.entries[dataset].scores.items()}

    deblurred = shown("Motion_Deblurring", "GoPro")
    assert list(deblurred) == [("gopro", "gopro"), (AS_PRINTED, "gopro")]
    restormer = deblurred["gopro", "gopro"]["Restormer"]
    assert scores(restormer, "GoPro") == {"psnr": "32.92", "ssim_3d": "0.961"}
    realblur = shown("Motion_Deblurring", "RealBlur")
    assert {
        key: scores(rows["MPRNet"], "RealBlur-J")
        for key, rows in realblur.items()
        if "MPRNet" in rows
    } == {
        ("realblur", "gopro"): {"psnr": "28.70", "ssim_gaussian": "0.873"},
        ("realblur", "realblur"): {"psnr": "31.76", "ssim_gaussian": "0.922"},
    }
    defocus = shown("Defocus_Deblurring", "DPDD")
    assert scores(defocus["dpdd", "dual"]["Restormer-D"], "DPDD") == {
        "psnr": "26.66",
        "ssim_uniform": "0.833",
        "mae": "0.035",
        "lpips": "0.155",
    }
    color = shown("Denoising", "CBSD68")
    assert "CDnCNN-B" not in color["gaussian", "color"]
    assert scores(color["gaussian", "color_blind"]["CDnCNN-B"], "CBSD68_sigma25")["psnr"] == "31.23"
    assert scores(color["gaussian", "color"]["FFDNet"], "CBSD68_sigma25")["psnr"] == "31.21"
    kodak = shown("Denoising", "Kodak24")
    assert list(kodak["gaussian", "color"]) == ["Restormer"]  # whole images of 768 x 512
    assert "SwinIR" in kodak[AS_PRINTED, "color"]
    crops = shown("Denoising", "Kodak24-500x500")
    assert list(crops["gaussian", "color"]) == ["CBM3D", "IRCNN", "FFDNet"]
    server = shown("Denoising", "SIDD-benchmark")
    validation = shown("Denoising", "SIDD-validation")
    assert scores(server[AS_PRINTED, "real"]["Restormer"], "SIDD-benchmark")["psnr"] == "39.86"
    assert scores(validation["sidd", "real"]["Restormer"], "SIDD-val") == {
        "psnr": "40.02",
        "ssim_3d": "0.960",
    }


def test_measured_rows_beside_published_ones(run_script, measured):
    scores = {"matlab_y_double": (37.484, 0.9792), "dtpnet": (50.0, 0.99)}
    code, printed, err = run_script(
        "tables", "--table", "Rain100", "--measured", f"prenet={measured(scores)}"
    )
    assert (code, err) == (0, "")
    tables = markdown_blocks(printed)
    prenet = tables[MATLAB_Y_DOUBLE, "prenet"]
    # best together with the published one: equal to the two and three decimals that both have
    assert prenet["mine †"][:4] == ["**37.48**", "**0.9792**", "", ""]
    assert prenet["PReNet"][:2] == ["**37.48**", "**0.979**"]
    assert prenet["PReNet_r"][0] == "<u>37.10</u>"
    assert prenet["mine †"][4] == (
        "measured here 2026-05-06 on some_machine, 2 threads, network PReNet, weights 1a2b3c4d, "
        "outputs truncated to 8 bits"
    )
    assert tables["Protocol `dtpnet`", "prenet"]["mine †"][:2] == ["50.00", "0.9900"]
    assert list(tables["Protocol `dtpnet`", "dtpnet_rain100"]) == ["method", "DTPNet"]


def test_unstated_training_and_subsets_have_unmarked_blocks(run_script, measured):
    whole = measured({"matlab_y_double": (60.0, 0.999)})
    part = measured({"matlab_y_double": (70.0, 0.999)}, "part", images=20)
    code, printed, _ = run_script(
        "tables", "--table", "Rain100", "--measured", whole, f"prenet={part}"
    )
    assert code == 0
    tables = markdown_blocks(printed)
    assert tables[MATLAB_Y_DOUBLE, "prenet"]["PReNet"][0] == "**37.48**"
    apart = tables[MATLAB_Y_DOUBLE, "training data not stated, measured here"]
    assert apart["mine †"][:2] == ["60.00", "0.9990"]
    other = tables[MATLAB_Y_DOUBLE, "not the whole test set; prenet"]
    assert other["part †"][:2] == ["70.00 (20 images, not 100)", "0.9990 (20 images, not 100)"]
    assert "image" not in other["method"][0]


def test_rain13k_shows_only_networks_trained_on_it(run_script, measured):
    scores = {"matlab_y": (39.5, 0.98)}
    mine = f"rain13k={measured(scores)}"
    test100 = measured(scores, "hundred", images=98, dataset="Test100")
    code, printed, _ = run_script("tables", "--table", "Rain13K", "--measured", mine, test100)
    assert code == 0
    tables = markdown_blocks(printed)
    assert list(tables) == [
        (MATLAB_Y, "rain13k"),
        (MATLAB_Y, "training data not stated, measured here"),
    ]
    rain13k = tables[MATLAB_Y, "rain13k"]
    assert rain13k["method"][0] == "Test100 PSNR (98 or 100 images)"
    assert rain13k["mine †"][6:8] == ["**39.50**", "**0.9800**"]
    assert rain13k["Restormer"][6:8] == ["<u>38.99</u>", "<u>0.978</u>"]
    assert rain13k["Restormer"][0] == "**32.00**"


def test_reconstructions_are_marked(run_script, measured):
    file = measured({"matlab_y": (30.0, 0.9)}, type="SPAIR")
    _, printed, _ = run_script("tables", "--table", "Rain100", "--measured", f"rain13k={file}")
    rows = markdown_blocks(printed)[MATLAB_Y, "rain13k"]
    assert "mine † ‡" in rows
    assert "SPAIR" in rows  # the authors' own numbers


def test_files(run_script, measured, tmp_path):
    file = measured({"matlab_y_double": (float("inf"), 1.0)}, "50%_mine & yours")
    out = tmp_path / "out"
    code, printed, _ = run_script(
        *("tables", "--table", "Rain100", "--out", out, "--measured", f"prenet={file}")
    )
    assert code == 0
    assert (out / "Rain100.md").read_text() in printed
    latex = (out / "Rain100.tex").read_text()
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == 4
    assert (
        r"50\%\_mine \& yours $\dagger$ & \textbf{inf} & \textbf{1.0000} &  &  & measured here "
        r"2026-05-06 on some\_machine, 2 threads"
    ) in latex
    assert r"PReNet & \underline{37.48} & \underline{0.979} & \textbf{29.46}" in latex
    assert r"\caption{Rain100, protocol matlab\_y\_double: Y of" in latex
    assert r"\multicolumn{2}{c}{Rain100L (100 images)}" in latex
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-5}" in latex
    assert sorted(path.name for path in out.glob("*.csv")) == [
        "Rain100.as-printed.dtpnet_rain100.csv",
        "Rain100.dtpnet.dtpnet_rain100.csv",
        "Rain100.matlab_y.rain13k.csv",
        "Rain100.matlab_y_double.prenet.csv",
    ]
    with (out / "Rain100.matlab_y_double.prenet.csv").open(newline="") as stream:
        *_, published, mine = csv.DictReader(stream)
    assert published["method"] == "PReNet_r"
    assert published["Rain100H PSNR (matlab_y_double)"] == "28.98"
    assert published["Rain100H PSNR place"] == "2"
    assert published["Rain100L images"] == "all 100"
    assert mine["measured"] == "yes"
    assert mine["reconstruction"] == "no"
    assert mine["Rain100L PSNR place"] == "1"
    assert mine["Rain100L images"] == "100"
    assert mine["Rain100H PSNR (matlab_y_double)"] == ""


def test_scores_outside_all_tables_are_reported(run_script, measured):
    file = measured({"matlab_y": (30.0, 0.9)}, dataset="photographs")
    code, printed, err = run_script("tables", "--table", "SPA", "--measured", file)
    assert code == 0
    assert "†  |" not in printed
    assert err.startswith(f"note: {file}: 'photographs' is left out: it is not one of Rain100L, ")


def test_synthetic_rain_is_not_in_tables(run_script, measured):
    file = measured({"matlab_y": (30.0, 0.9)})
    document = json.loads(file.read_text())
    document["provenance"]["options"]["datasets"]["test_1"]["type"] = "SyntheticRainDataset"
    file.write_text(json.dumps(document))
    _, printed, err = run_script("tables", "--table", "Rain100", "--measured", file)
    assert "mine" not in printed
    assert "'Rain100L' is left out" in err


def test_a_setting_without_the_data_set(run_script, measured):
    file = measured({"matlab_y": (30.0, 0.9)}, images=200, dataset="Rain200L")
    _, printed, err = run_script("tables", "--table", "Rain200", "--measured", f"prenet={file}")
    assert f"{file}: no published row of prenet is of Rain200L; it stands apart" in err
    assert (MATLAB_Y, "training data not stated, measured here") in markdown_blocks(printed)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is no scores.json of basicsr/test.py: Invalid JSON"),
        ("{}", "is no scores.json of basicsr/test.py: method: Field required"),
        ("[]", "is no scores.json of basicsr/test.py: Input should be an object"),
    ],
)
def test_malformed_files(run_script, tmp_path, text, complaint):
    file = tmp_path / "scores.json"
    file.write_text(text)
    code, printed, err = run_script("tables", "--measured", file)
    assert (code, printed) == (2, "")
    assert err.startswith(f"error: {file}: {complaint}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("place", "value", "complaint"),
    [
        ("psnr", "NaN", "results.0.psnr: NaN is not a number"),
        ("ssim", 97.9, "results.0.ssim: 97.9 is not between -1 and 1"),
        ("images", 0, "results.0.images: Input should be greater than 0"),
        ("protocol", "matlab_z", "no protocol is called 'matlab_z' (did you mean 'matlab_y'?)"),
    ],
)
def test_invalid_results(run_script, measured, place, value, complaint):
    file = measured({"matlab_y": (30.0, 0.9)})
    document = json.loads(file.read_text())
    document["results"][0][place] = value
    file.write_text(json.dumps(document))
    code, _, err = run_script("tables", "--measured", file)
    assert code == 2
    assert err.startswith(f"error: {file}: ")
    assert complaint in err


def test_unknown_network_and_setting(run_script, measured):
    file = measured({"matlab_y": (30.0, 0.9)}, type="PreNet")
    _, _, err = run_script("tables", "--measured", file)
    assert err.startswith(f"error: {file}: no network is called 'PreNet' (did you mean 'PReNet'?)")
    _, _, err = run_script("tables", "--measured", f"prent={file}")
    assert "no published rows are called 'prent' (did you mean 'prenet'?)" in err


@pytest.fixture
def costs(tmp_path: Path) -> Path:
    def network(name: str, parameters: int, latency: float) -> dict[str, object]:
        measured = {"median": latency, "lower": latency, "upper": latency}
        return {"network": name, "parameters": parameters, "macs": 10**10, "latency": measured}

    document = {
        "size": [256, 256],
        "precision": "fp32",
        "networks": [network("PReNet", 168_963, 0.1), network("SPAIR", 4_588_496, 0.2)],
        "provenance": {"device": "some machine"},
    }
    file = tmp_path / "cost.json"
    file.write_text(json.dumps(document))
    return file


def test_picture(run_script, measured, costs, tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    labels: list[str] = []
    annotate = Axes.annotate

    def noted(self, text, *arguments, **options):
        labels.append(text)
        return annotate(self, text, *arguments, **options)

    monkeypatch.setattr(Axes, "annotate", noted)
    mine = measured({"matlab_y": (33.0, 0.95)})
    other = measured({"matlab_y": (33.0, 0.95)}, "deeper", recurrent_iter=7)
    file = tmp_path / "picture.png"
    code, _, err = run_script(
        *("tables", "--table", "SPA", "--picture", file, "--cost", costs),
        *("--block", "Rain100L", "matlab_y", "rain13k"),
        *("--measured", f"rain13k={mine}", f"rain13k={other}"),
    )
    assert code == 0
    assert file.read_bytes().startswith(b"\x89PNG")
    # the published SPAIR's cost is unknown, and the cost of seven iterations too
    assert labels == ["PReNet", "mine"] * 3
    assert err == f"{other}: not in the picture: PReNet has other options\n"


def test_picture_of_nothing(run_script, costs, tmp_path):
    asked = ("tables", "--picture", tmp_path / "p.png", "--cost", costs, "--block")
    code, _, err = run_script(*asked, "Rain100L", "as printed", "dtpnet_rain100")
    assert code == 2
    assert "has no row whose network's cost is known; blocks with rows: Rain100H dtpnet" in err
    _, _, err = run_script("tables", "--picture", tmp_path / "p.png")
    assert err == "error: --picture, --cost and --block belong together\n"
    costs.write_text("{}")
    _, _, err = run_script(*asked, "Rain100L", "matlab_y", "rain13k")
    assert err == f"error: {costs}: is no file of scripts/cost.py (KeyError: 'size')\n"


@pytest.mark.parametrize("name", ["Motion_Deblurring", "Defocus_Deblurring", "Denoising"])
def test_tables_show_the_data_sets_of_the_option_files(name):
    task = Task.load(ROOT / name)
    files = [
        file for file in (ROOT / "options/test" / name).glob("*.yml") if "demo" not in file.name
    ]
    assert files
    for file in files:
        for dataset in load_options(Options, file).datasets.values():
            assert dataset.name in task.images, file
            # DND has no ground truth: its server measures
            assert dataset.type in (*task.dataset_types, "DNDDataset"), file
