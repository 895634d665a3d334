from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from basicsr.io.images import read_image, write_png


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for side in ("rain", "norain"):
        for number in range(4):
            image = np.random.default_rng(number).integers(0, 256, (40, 48, 3), dtype=np.uint8)
            write_png(tmp_path / side / f"{number}.png", image)
    return tmp_path


def _spread_is_plausible(figure: dict) -> None:
    assert 0 < figure["low"] <= figure["median"] <= figure["high"]
    assert len(figure["runs"]) == 2


def test_loader(run_script, root: Path):
    code, out, _ = run_script(
        *("benchmarks/loader", "--dataroot", root, "--workers", 1, "--size", 16),
        *("--batch-size", 2, "--batches", 10, "--repeats", 2),
    )
    measured = json.loads(out)
    assert code == 0
    assert measured["images"] == "4 pairs"
    for name in ("loader", "plain"):
        _spread_is_plausible(measured[name])


def test_metrics(run_script, root: Path):
    code, out, _ = run_script(
        *("benchmarks/metrics", "--restored", root / "rain", "--gt", root / "norain"),
        *("--workers", 1, "--repeats", 2),
    )
    measured = json.loads(out)
    assert code == 0
    assert (measured["images"], measured["protocol"]) == ("4 pairs", "matlab_y")
    for name in ("files", "measure", "skimage"):
        _spread_is_plausible(measured[name])


@pytest.mark.parametrize("network", [("--network", "DTPNet-T"), ("--weights", "DTPNet-T_any-rain")])
def test_photograph(run_script, network):
    """Restore a small image; the budget is far above the memory of a test process."""
    code, out, _ = run_script(
        *("benchmarks/photograph", *network, "--size", 40, 33, "--memory", 64),
        *("--device", "cpu", "--whole"),
    )
    measured = json.loads(out)
    assert code == 0
    assert measured["network"] == network[1]
    assert measured["size"] == [40, 33]
    assert 0 < measured["peak_gib"] < 64
    assert 0 <= measured["difference"] < 1e-5
    assert measured["seconds"] > 0


def test_a_photograph_without_pixels_is_refused(run_script):
    code, _, err = run_script("benchmarks/photograph", "--size", 40, 0, "--memory", 4)
    assert code == 2
    assert err.splitlines()[-1].endswith("argument --size: at least 1")


@pytest.mark.parametrize("name", ["loader", "metrics"])
def test_drawn_pairs_are_like_rain100l(load_script, tmp_path: Path, name: str):
    load_script(f"benchmarks/{name}").draw_pairs(tmp_path, 1)
    (first, second) = sorted(tmp_path.rglob("0.png"))
    assert read_image(first).shape == read_image(second).shape == (321, 481, 3)
    assert (read_image(first) != read_image(second)).any()
    assert 200_000 < first.stat().st_size < 400_000


def test_commands(load_script, monkeypatch, capsys):
    script = load_script("benchmarks/commands")
    calls = []
    monkeypatch.setattr(
        script.subprocess, "run", lambda arguments, **_: calls.append(arguments[2:])
    )
    script.main(["--runs", "2"])
    for name in ("restore", "train", "test", "measure", "app"):
        assert calls.count([f"basicsr.{name}", "--help"]) == 2
    first, second = (call for call in calls if "-o" in call)
    assert first[3] != second[3]  # a second call would skip a photograph that is restored already
    assert "| `restore photograph.png` | 0.00 |" in capsys.readouterr().out


TRAINING = """\
name: tiny
model_type: RestorationModel
network_g: {type: PRN_r, recurrent_iter: 1, channels: 4}
datasets:
  train:
    {name: cat, type: SyntheticRainDataset, dataroot_gt: skimage, files: [chelsea.png], rain: light,
     patches: [{size: 16, batch_size: 2, iters: 60}], num_worker_per_gpu: 0}
train:
  total_iter: 60
  optim_g: {type: Adam, lr: 1.0e-3}
  scheduler: {type: CosineAnnealingRestartLR, periods: [60]}
  losses: [{type: L1Loss}]
"""


def test_revisions(run_script, tmp_path):
    root, options = Path(__file__).parents[2], tmp_path / "tiny.yml"
    options.write_text(TRAINING)
    code, out, err = run_script("benchmarks/revisions", root, root, "-opt", options, "--repeats", 1)
    assert code == 0, err
    first, second = (line.split("|")[1:-1] for line in out.splitlines()[2:])
    assert first[:2] == second[:2] == [" 2 of 16 x 16 ", f" {root} "]
    assert first[4] == " 1.00, 1.00 "
    assert float(second[2]) == float(second[3]) > 0


def test_revisions_name_what_cannot_be_measured(run_script, tmp_path):
    root, options = Path(__file__).parents[2], tmp_path / "tiny.yml"
    options.write_text(TRAINING)
    code, _, err = run_script("benchmarks/revisions", tmp_path, "-opt", options)
    assert code == 2
    assert f"{tmp_path}: no checkout of this project" in err
    (tmp_path / "basicsr").mkdir()
    (tmp_path / "basicsr/train.py").write_text('raise SystemExit("error: tiny.yml: no such loss")')
    code, _, err = run_script("benchmarks/revisions", tmp_path, "-opt", options)
    assert code == 2
    assert f"error: {tmp_path}: train.py: tiny.yml: no such loss" in err
    options.write_text(TRAINING.replace("PRN_r", "PRN_q"))
    code, _, err = run_script("benchmarks/revisions", root, "-opt", options)
    assert code == 2
    assert f"error: {options}: network_g" in err
    assert "PRN_q" in err
    options.write_text(TRAINING.replace("60", "20"))
    code, _, err = run_script("benchmarks/revisions", root, "-opt", options)
    assert code == 2
    assert f"error: {options}: train.total_iter must be at least 50" in err


def test_runtimes(load_script, monkeypatch, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    pytest.importorskip("onnxscript")
    script = load_script("benchmarks/runtimes")
    options = {"type": "PRN_r", "recurrent_iter": 1, "channels": 4}
    network = script.build_network(options).eval()
    monkeypatch.setattr(script, "network_of", lambda name: network)
    file = tmp_path / "network.onnx"
    script.exported("PRN_r", 16, file)
    reference = None
    for runtime in script.RUNTIMES:
        seconds, restored = script.Measured(runtime, "PRN_r", file, 16, 1)()
        assert seconds > 0
        reference = restored if reference is None else reference
        tolerance = 1e-5 if runtime.endswith("fp32") else 2e-2
        np.testing.assert_allclose(restored, reference, rtol=0, atol=tolerance)


class InThisProcess:
    """Pool of one worker, which is this process."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def submit(self, function: Any, *arguments: Any) -> Any:
        result = function(*arguments)
        return SimpleNamespace(result=lambda: result)


def test_runtimes_run_in_turns(load_script, monkeypatch):
    script = load_script("benchmarks/runtimes")
    calls = []

    def runner(runtime, name, file, threads):
        return lambda image: calls.append(runtime) or image + (runtime == "OpenVINO bf16") / 8

    monkeypatch.setattr(script, "ProcessPoolExecutor", InThisProcess)
    monkeypatch.setattr(script, "exported", lambda *_: None)
    monkeypatch.setattr(script, "runner", runner)
    monkeypatch.setattr(script, "_prepare", lambda *arguments: prepared.append(arguments))
    prepared: list[Any] = []

    def run():
        runtime = script.RUNTIMES[len(calls) % len(script.RUNTIMES)]
        return *script.Measured(runtime, "a", None, 8, 1)(), 0.5

    monkeypatch.setattr(script, "_run", run)
    monkeypatch.setattr(script, "has_units", lambda *_: True)
    row = script.compare("a", 8, runs=2)
    assert calls == list(script.RUNTIMES) * 3
    assert len(prepared) == len(script.RUNTIMES)
    for runtime, figures in row["variants"].items():
        assert figures["seconds"] == min(figures["runs"])
        assert len(figures["runs"]) == 2
        assert figures["difference"] == pytest.approx(
            0.125 if "bf16" in runtime and "V" in runtime else 0
        )
    assert "| a | 8 | PyTorch fp32 | " in script.table(row)

    monkeypatch.setattr(script, "has_units", lambda device, precision: precision == "fp32")
    monkeypatch.setattr(script, "_run", lambda: (1.0, np.zeros(1), 0.5))
    assert list(script.compare("a", 8, runs=1)["variants"]) == [
        *("PyTorch fp32", "ONNX Runtime fp32", "OpenVINO fp32")
    ]
