from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[..., Path]


@pytest.fixture
def run_of(tmp_path: Path) -> Write:
    """Return a function that writes a run with loss 1 / line number, validated on even lines."""

    def write(name: str, count: int, best: float = 30.0) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        lines = []
        for i in range(1, count + 1):
            values = {
                "train/loss": 1 / i,
                "train/L1Loss": 1 / i,
                "train/learning_rate": 1e-3,
                "time/images_per_second": 10.0 * i,
                "time/waiting_for_data": 0.25,
            }
            lines.append({"iteration": 100 * i, **values})
            if i % 2 == 0:
                scores = {"val/matlab_y_psnr": best - abs(i - 2), "val/matlab_y_ssim": 0.9}
                lines.append({"iteration": 100 * i, **scores})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "metrics.jsonl").write_text(text)
        return folder

    return write


def test_table_and_picture(run_script, run_of, tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn: list[tuple[str, list[float]]] = []
    plot = Axes.plot

    def recorded(self, x, y, **style):
        drawn.append((style["color"], list(y)))
        return plot(self, x, y, **style)

    monkeypatch.setattr(Axes, "plot", recorded)
    picture = tmp_path / "curves.png"
    code, printed, err = run_script(
        *("plot_runs", run_of("A", 5), run_of("B", 3, 31.5), "--out", picture, "--smooth", 3)
    )
    assert (code, err) == (0, "")
    assert picture.read_bytes().startswith(b"\x89PNG")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines()]
    assert rows[0][3] == "best PSNR (matlab_y)"
    assert rows[2] == ["A", "500", "0.20000", "30.0000 at 200", "30", "25%"]
    assert rows[3] == ["B", "300", "0.33333", "31.5000 at 200", "20", "25%"]
    blue, orange = "#0072B2", "#D55E00"
    assert drawn[:2] == [(blue, [30.0, 28.0]), (orange, [31.5])]  # validations as they are
    means = [1, (1 + 1 / 2 + 1 / 3) / 3, (1 / 2 + 1 / 3 + 1 / 4) / 3, (1 / 3 + 1 / 4 + 1 / 5) / 3]
    losses = [values for colour, values in drawn[4:8] if colour == blue]
    assert losses[0] == [1 / i for i in range(1, 6)]
    assert losses[1] == pytest.approx([*means, 1 / 5])
    assert [1e-3] * 5 in [values for _, values in drawn]  # the learning rate is not smoothed
    assert len([values for _, values in drawn if len(values) == 5]) == 3  # L1Loss is the loss


def test_scores_are_read_from_their_logged_names(load_script):
    parse_score = load_script("plot_runs").parse_score
    assert str(parse_score("val/matlab_y_double_psnr")) == "PSNR (matlab_y_double)"
    assert str(parse_score("val_2/niqe_niqe")) == "NIQE (niqe, val_2)"
    assert parse_score("val/rgb_ssim").ranks is False
    assert parse_score("train/loss") is None
    assert parse_score("val/iqa:lpips_lpips") is None


def test_the_best_of_a_metric_may_be_its_lowest(load_script):
    plot_runs = load_script("plot_runs")
    curve = plot_runs.Curve([100, 200, 300], [5.0, 4.0, 4.5])
    table = plot_runs.table([plot_runs.Run("A", {"val/niqe_niqe": curve})])
    assert table.splitlines()[2] == "| A | 300 |  | 4.0000 at 200 |  |  |"


def test_runs_with_the_same_name_get_unique_names(run_script, run_of, tmp_path):
    first, second = run_of("monday/try", 2), run_of("friday/try", 2)
    _, printed, _ = run_script("plot_runs", first, second, first, "--out", tmp_path / "x.png")
    names = [line.split("|")[1].strip() for line in printed.splitlines()[2:]]
    assert names == ["monday/try", "friday/try"]


def test_an_incomplete_last_line_is_ignored(run_script, run_of, tmp_path):
    folder = run_of("A", 2)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 300, "train/lo')
    code, printed, _ = run_script("plot_runs", folder, "--out", tmp_path / "x.png")
    assert code == 0
    assert "| A | 200 |" in printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no metrics yet; wait for print_freq iterations"),
        ('{"iteration": 1, "a": 2}\nnonsense\n', "line 2 does not hold a run's metrics"),
        ('{"train/loss": 2}\n', "line 1 does not hold a run's metrics"),
        ("[1]\n", "line 1 does not hold a run's metrics"),
    ],
)
def test_malformed_logs(run_script, tmp_path, text, message):
    file = tmp_path / "metrics.jsonl"
    file.write_text(text)
    code, printed, err = run_script("plot_runs", tmp_path, "--out", tmp_path / "x.png")
    assert (code, printed) == (2, "")
    assert err == f"error: {file}: {message}\n"


def test_even_windows_are_refused(run_script, tmp_path):
    code, _, err = run_script("plot_runs", tmp_path, "--out", "x.png", "--smooth", 4)
    assert code == 2
    assert "an odd number of at least 1" in err
