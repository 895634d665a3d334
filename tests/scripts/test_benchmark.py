from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from basicsr.archs import build_network
from basicsr.models.cost import network_cost

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def benchmarks(monkeypatch):
    """Return the modules beside the script."""
    monkeypatch.syspath_prepend(SCRIPTS)
    from benchmarks import floor, networks, picture, tables

    yield {"floor": floor, "networks": networks, "picture": picture, "tables": tables}
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        del sys.modules[name]


@pytest.mark.slow
def test_a_whole_run(run_script, benchmarks, tmp_path, monkeypatch):
    """Run the script; peak memory is replaced, as it has its own test."""
    peaks = iter([100, 90, 50, 200, 300, 400])
    monkeypatch.setattr(
        benchmarks["networks"], "peak_memory", lambda *_: {"peak": next(peaks), "before": 10}
    )
    code, printed, err = run_script(
        *("benchmark", "--device", "cpu", "--networks", "SPAIR", "--sizes", 14, "--precisions"),
        *("fp32", "--patches", 1, 16, "--repeats", 3, "--shrink", 32, "--out", tmp_path),
        *("--subjects", "inference", "training"),
    )
    assert (code, err) == (0, "")
    document = json.loads((tmp_path / "benchmark.json").read_text())
    assert document["loader"] is None
    assert document["metrics"] is None
    assert document["provenance"]["torch"] == torch.__version__
    inference, training = document["networks"]
    assert inference["size"] == [16, 16]  # rounded up to multiples of 4
    compared = ["fast fp32", "baseline, memory kept", "baseline"]
    assert list(inference["variants"]) == list(training["variants"]) == compared
    assert training["ratios"]["fast fp32"]["memory"] == 0.5
    for row in (inference, training):
        baseline = row["variants"]["baseline"]["seconds"]["median"]
        floor = row["floors"]["fp32"]
        ceilings = floor["ceilings"]
        bounds = floor["macs"] / ceilings["macs"], floor["traffic"] / ceilings["traffic"]
        assert floor["seconds"] == max(bounds)
        assert floor["bound"] == ("arithmetic" if bounds[0] > bounds[1] else "memory")
        for name, variant in row["variants"].items():
            seconds = variant["seconds"]
            assert len(seconds["runs"]) == 3
            assert seconds["lower"] <= seconds["median"] <= seconds["upper"]
            assert variant["share_of_floor"] == pytest.approx(floor["seconds"] / seconds["median"])
            if name != "baseline":
                assert row["ratios"][name]["speed"] == pytest.approx(baseline / seconds["median"])
    macs = [row["floors"]["fp32"]["macs"] for row in (inference, training)]
    assert macs[1] > 2.5 * macs[0]
    assert "### SPAIR, inference, 1 x 16 x 16" in printed
    assert document["kernels"] in (None, "C")  # with or without a compiler
    assert (tmp_path / "benchmark.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_an_interrupted_run_keeps_its_results(run_script, benchmarks, tmp_path, monkeypatch):
    from benchmarks import loader

    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmarks["networks"], "peak_memory", lambda *_: {"peak": 1, "before": 1})
    monkeypatch.setattr(loader, "measure", interrupted)
    code, _, err = run_script(
        *("benchmark", "--device", "cpu", "--networks", "SPAIR", "--sizes", 16, "--repeats", 1),
        *("--shrink", 32, "--subjects", "inference", "loader", "--out", tmp_path),
    )
    assert (code, err) == (130, "error: interrupted\n")
    (row,) = json.loads((tmp_path / "benchmark.json").read_text())["networks"]
    assert row["variants"]["baseline"]["seconds"]["median"] > 0
    assert (tmp_path / "benchmark.png").exists()


def test_emulated_precisions_are_refused(run_script, tmp_path, set_units):
    set_units("fp32")
    line = ("benchmark", "--device", "cpu", "--precisions", "bf16", "--out", tmp_path / "out")
    code, _, err = run_script(*line)
    assert code == 2
    assert err == "error: --precisions: bf16 is emulated on this device; leave it out\n"
    assert not (tmp_path / "out").exists()


def test_variants(benchmarks):
    def variants(subject: str, network: str, device: str, *precisions: str) -> list[str]:
        case = benchmarks["networks"].Case(subject, network, 1, (8, 8), precisions, device)
        return [str(variant) for variant in case.variants()]

    plain = ["baseline, memory kept", "baseline"]
    assert variants("inference", "DTPNet", "cpu", "fp32") == ["fast fp32", *plain]
    spared = ["fast fp32", "selective fp32", "blocks fp32"]
    assert variants("training", "DTPNet", "cpu", "fp32") == [*spared, *plain]
    assert variants("training", "PReNet", "cpu", "bf16") == ["fast bf16", *plain]
    assert variants("inference", "PReNet", "cuda", "fp32", "bf16") == [
        *("fast fp32", "no graphs fp32", "no kernels fp32"),
        *("fast bf16", "no graphs bf16", "no kernels bf16", "baseline"),
    ]
    on_gpu = ["no kernels fp32", "baseline"]
    assert variants("training", "DTPNet", "cuda", "fp32") == [*spared, *on_gpu]


@pytest.mark.parametrize("kind", ["fast", "selective", "blocks", "baseline"])
def test_every_kind_of_training_runs(benchmarks, kind):
    networks = benchmarks["networks"]
    case = networks.Case("training", "DTPNet-T", 1, (16, 16), ("bf16",), "cpu")
    networks.run_of(case, networks.Variant(kind, "bf16"))()


def test_work_of_a_network_is_counted(benchmarks):
    """Count a convolution of 8 x 3 x 9 weights on 16 x 16 pixels."""
    work_of = benchmarks["floor"].work_of
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
    macs, traffic = work_of(network, (2, 3, 16, 16), "fp32")
    assert macs == 2 * 8 * 27 * 256
    values = 2 * 3 * 256 + (8 * 27 + 8) + 2 * 8 * 256
    assert traffic == 4 * values
    assert work_of(network, (2, 3, 16, 16), "bf16").traffic == 2 * values
    trained = work_of(network, (2, 3, 16, 16), "fp32", training=True)
    assert trained.macs == 2 * macs  # the image needs no gradient
    assert trained.traffic > 2 * traffic


def test_gradients_of_grouped_convolutions_are_counted(benchmarks):
    work_of = benchmarks["floor"].work_of
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8))
    point, depth = 8 * 3 * 256, 8 * 9 * 256
    trained = work_of(network, (1, 3, 16, 16), "fp32", training=True)
    assert trained.macs == 2 * point + 3 * depth


def test_work_of_dtpnet_agrees_with_its_cost(benchmarks):
    network = build_network({"type": "DTPNet-T", "num_blocks": (1, 1, 1, 1), "recurrent_iter": 1})
    work = benchmarks["floor"].work_of(network, (1, 3, 16, 16), "fp32")
    assert work.macs == network_cost(network, (1, 3, 16, 16)).macs


def test_floor_is_the_longer_time(benchmarks):
    floor = benchmarks["floor"]
    ceilings = floor.Ceilings(macs=100, traffic=10)
    assert floor.Work(200, 10).floor(ceilings) == {"seconds": 2.0, "bound": "arithmetic"}
    assert floor.Work(200, 30).floor(ceilings) == {"seconds": 3.0, "bound": "memory"}


def test_the_speed_of_a_device_is_the_higher_one_around_the_runs(benchmarks, monkeypatch):
    networks, ceilings = benchmarks["networks"], benchmarks["floor"].Ceilings
    measured = iter([ceilings(100, 20), ceilings(50, 30)])
    monkeypatch.setattr(networks, "measure_ceilings", lambda *_: next(measured))
    monkeypatch.setattr(networks, "peak_memory", lambda *_: {"peak": 1, "before": 1})
    case = networks.Case("inference", "PRN_r", 1, (8, 8), ("fp32",), "cpu")
    floor = networks.measure(case, repeats=1, memory=1e9)["floors"]["fp32"]
    assert floor["ceilings"] == {"macs": 100, "traffic": 30}
    assert floor["seconds"] == max(floor["macs"] / 100, floor["traffic"] / 30)


def test_memory_is_measured_in_a_new_process(benchmarks):
    networks = benchmarks["networks"]
    case = networks.Case("inference", "PRN_r", 1, (64, 64), ("fp32",), "cpu")
    fast = networks.Variant("fast", "fp32")
    memory = networks.peak_memory(case, fast, 4 * 2**30)
    assert 2**26 < memory["before"] <= memory["peak"] < 4 * 2**30
    assert networks.peak_memory(case, fast, 2**26) == "out of memory"


def test_variants_out_of_memory_are_reported(benchmarks, monkeypatch):
    networks = benchmarks["networks"]
    monkeypatch.setattr(
        networks,
        "peak_memory",
        lambda case, variant, limit: (
            "out of memory" if variant.kind == "baseline" else {"peak": 5, "before": 1}
        ),
    )
    case = networks.Case("inference", "PRN_r", 1, (8, 8), ("fp32",), "cpu")
    row = networks.measure(case, repeats=1, memory=1e9, shrink=32)
    assert row["ratios"] == {}
    assert "seconds" not in row["variants"]["baseline"]
    table = benchmarks["tables"].network(row)
    assert "| baseline | out of memory |" in table
    assert benchmarks["picture"].sizes([row]) == {}


def test_fast_and_baseline_compute_the_same(benchmarks):
    networks = benchmarks["networks"]
    case = networks.Case("inference", "DTPNet-T", 1, (16, 16), ("fp32",), "cpu")
    x = torch.rand(case.shape)
    fast, plain = case.build().eval(), networks.plain_twin(case.build()).eval()
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), plain(x), rtol=1e-4, atol=1e-5)
    assert type(fast) is not type(plain)


def test_loader_and_metrics_tables(benchmarks):
    def figures(median: float) -> dict[str, Any]:
        return {"median": median, "low": median / 2, "high": 2 * median, "runs": [median]}

    tables = benchmarks["tables"]
    loader = {"images": "100 pairs", "workers": 8, "cores": 2, "size": 128}
    text = tables.loader({**loader, "loader": figures(1000.0), "plain": figures(100.0)})
    assert "1000 (500 to 2000) pairs of patches a second" in text
    assert "10.0 times as fast" in text
    metrics = {"images": "100 pairs", "protocol": "matlab_y", "workers": 2}
    named = {name: figures(2.0) for name in ("files", "measure", "skimage")}
    assert "| files | 2.00 | 1.00 to 4.00 |" in tables.metrics({**metrics, **named})


def test_patches_are_halved_until_the_baseline_fits(run_script, benchmarks, tmp_path, monkeypatch):
    chosen = []

    def measure(case, *_):
        chosen.append(case)
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmarks["networks"], "measure", measure)
    code, _, _ = run_script(
        *("benchmark", "--device", "cpu", "--networks", "PReNet", "--patches", 8, 64),
        *("--memory", 0.25, "--subjects", "training", "--shrink", 32, "--out", tmp_path),
    )
    assert code == 130
    assert 1 <= chosen[0].batch < 8
    assert math.log2(chosen[0].batch).is_integer()
