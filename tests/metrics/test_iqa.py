"""The adapter to pyiqa: with a stub of the package, and with the package where it is installed.

The real one is not among the requirements (about 1 GB with what it needs):
`pip install pyiqa && pytest tests/metrics/test_iqa.py`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from basicsr import metrics
from basicsr.metrics import get_protocol, measure
from basicsr.metrics.base import Protocol
from basicsr.metrics.full_reference import MAE
from basicsr.metrics.iqa import LPIPS, iqa_protocol
from basicsr.utils.errors import DataError, OptionsError

INSTALLED = importlib.util.find_spec("pyiqa") is not None
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


class StubMetric:
    """Mean of the image, or mean absolute difference of two."""

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.seen: list[torch.Tensor] = []

    def __call__(self, restored: torch.Tensor, target: torch.Tensor | None = None) -> torch.Tensor:
        self.seen = [restored] if target is None else [restored, target]
        difference = restored if target is None else (restored - target).abs()
        return self.scale * difference.mean().reshape(1, 1)


@pytest.fixture
def pyiqa(monkeypatch):
    """Replace the package by a stub; the metrics in `package.offline` lack their weights."""
    package = types.ModuleType("pyiqa")
    configurations = types.ModuleType("pyiqa.default_model_configs")
    configurations.DEFAULT_CONFIGS = {
        "far": {"metric_mode": "FR", "lower_better": True},
        "blind": {"metric_mode": "NR"},
        "offline": {"metric_mode": "NR"},
        "lpips": {"metric_mode": "FR", "lower_better": True},
        "fid": {"metric_mode": "NR-set"},
    }
    download_util = types.ModuleType("pyiqa.utils.download_util")
    download_util.download_url_to_file = torch.hub.download_url_to_file

    def create_metric(name: str, device: torch.device, pretrained_model_path: str = "1"):
        if name in package.offline:
            download_util.download_url_to_file("https://no.where/w.pth", "/cache/w.pth")
        package.made = StubMetric(float(Path(pretrained_model_path).name))
        return package.made

    package.offline = {"offline"}
    package.create_metric = create_metric
    for module in (package, configurations, download_util):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "pyiqa.utils", types.ModuleType("pyiqa.utils"))
    get_protocol.cache_clear()
    yield package
    get_protocol.cache_clear()


def test_full_reference(pyiqa) -> None:
    protocol = get_protocol("iqa:far")
    assert (protocol.name, protocol.needs_reference, protocol.reads) == ("iqa:far", True, "8bit")
    (metric,) = protocol.metrics
    assert (metric.name, metric.better, metric.decimals) == ("far", "lower", 4)
    target = np.full_like(IMAGE, 51)
    scores = measure(IMAGE, target, "iqa:far")
    expected = np.abs(IMAGE / 255 - 0.2).mean()
    assert scores == {"far": pytest.approx(expected, abs=1e-6)}
    assert [tuple(image.shape) for image in pyiqa.made.seen] == [(1, 3, 40, 50)] * 2
    with pytest.raises(DataError, match="protocol 'iqa:far' compares with the ground truth"):
        measure(IMAGE, protocol="iqa:far")


def test_no_reference_and_other_inputs(pyiqa) -> None:
    protocol = get_protocol("iqa:blind")
    assert not protocol.needs_reference
    assert protocol.metrics[0].better == "higher"
    expected = {"blind": pytest.approx(IMAGE.mean() / 255, abs=1e-6)}
    assert measure(IMAGE, protocol="iqa:blind") == expected
    assert measure(IMAGE.astype(np.uint16) * 257, protocol="iqa:blind") == expected
    assert measure(IMAGE / 255, protocol="iqa:blind") == expected
    gray = measure(IMAGE[..., :1], protocol="iqa:blind")
    assert gray["blind"] == pytest.approx(IMAGE[..., 0].mean() / 255, abs=1e-6)
    assert pyiqa.made.seen[0].shape[1] == 3


def test_weights_of_a_given_path(pyiqa, tmp_path) -> None:
    protocol = iqa_protocol("blind", tmp_path / "2")
    assert protocol(IMAGE)["blind"] == pytest.approx(2 * IMAGE.mean() / 255, abs=1e-6)


def test_errors_are_one_line(pyiqa, monkeypatch) -> None:
    with pytest.raises(OptionsError, match=r"no metric .*'blnd' \(did you mean 'blind'\?\); it"):
        get_protocol("iqa:blnd")
    with pytest.raises(OptionsError, match="no metric of single images named 'fid'"):
        get_protocol("iqa:fid")

    def refuse(url: str, dst: str) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(OptionsError) as error:
        get_protocol("iqa:offline")
    assert str(error.value) == (
        "iqa:offline: /cache/w.pth is missing and cannot be downloaded (no route to host); get it "
        "from https://no.where/w.pth"
    )
    assert torch.hub.download_url_to_file is refuse


class WithLPIPS(Protocol):
    """Unrounded images, and a metric that may be missing."""

    name = "with_lpips"
    description = "MAE and LPIPS"
    reads = "float"

    def __init__(self) -> None:
        self.metrics = (MAE(), LPIPS())


def test_lpips_of_unrounded_images(pyiqa, caplog) -> None:
    target = np.full(IMAGE.shape, 0.2)
    restored = IMAGE / 256
    expected = pytest.approx(np.abs(restored - target).mean(), abs=1e-6)
    assert WithLPIPS()(restored, target) == {"mae": expected, "lpips": expected}
    assert not caplog.records
    lpips = LPIPS()
    assert (lpips.better, lpips.label, lpips.optional) == ("lower", "LPIPS", True)


def test_lpips_is_left_out_without_its_weights(pyiqa, monkeypatch, caplog) -> None:
    """Nothing is downloaded, and the warning is given once."""
    pyiqa.offline.add("lpips")
    downloads = []
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *file: downloads.append(file))
    protocol = WithLPIPS()
    for _ in range(3):
        assert list(protocol(IMAGE, IMAGE)) == ["mae"]
    assert [record.getMessage() for record in caplog.records] == [
        "LPIPS is left out: iqa:lpips: /cache/w.pth is missing; get it from https://no.where/w.pth"
    ]
    assert downloads == []
    assert [metric.name for metric in protocol.metrics] == ["mae", "lpips"]
    assert [metric.name for metric in protocol.available_metrics] == ["mae"]


def test_lpips_is_left_out_without_the_package(monkeypatch, caplog) -> None:
    _remove_package(monkeypatch)
    assert not LPIPS().available
    assert caplog.records[0].getMessage() == (
        'LPIPS is left out: iqa metrics need the package pyiqa: pip install "dtpnet-derain[iqa]"'
    )


def test_without_the_package(monkeypatch) -> None:
    _remove_package(monkeypatch)
    with pytest.raises(OptionsError) as error:
        iqa_protocol("lpips")
    assert str(error.value) == (
        'iqa metrics need the package pyiqa: pip install "dtpnet-derain[iqa]"'
    )


def _remove_package(monkeypatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyiqa"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    monkeypatch.setitem(sys.modules, "pyiqa.default_model_configs", None)


SCRIPT = """
import numpy as np
from scipy.ndimage import gaussian_filter
from basicsr.metrics import get_protocol, measure
from basicsr.utils.errors import OptionsError
a = np.random.default_rng(0).integers(0, 256, (200, 220, 3), dtype=np.uint8)
b = np.random.default_rng(1).integers(0, 256, (200, 220, 3), dtype=np.uint8)
assert abs(measure(a, b, "iqa:psnr")["psnr"] - measure(a, b, "rgb")["psnr"]) < 1e-3
noise = np.random.default_rng(5).normal(0, 1, (3, 288, 288, 3))
smooth = sum(s * gaussian_filter(n, (s, s, 0)) for s, n in zip((1, 4, 16), noise))
photo = np.clip(128 + 60 * smooth, 1, 254).astype(np.uint8)
theirs, ours = (measure(photo, protocol=name)["niqe"] for name in ("iqa:niqe", "niqe"))
assert abs(theirs - ours) < 0.05  # other gray levels and single precision
assert get_protocol("iqa:niqe").metrics[0].better == "lower"
try:
    get_protocol("iqa:musiq")
except OptionsError as error:
    print(error)
"""


@pytest.mark.skipif(not INSTALLED, reason="pyiqa is not installed")
def test_the_real_package(tmp_path) -> None:
    """NIQE reads its parameters from the cache, and the error for MUSIQ names its file there."""
    cache = tmp_path / "hub" / "pyiqa"
    cache.mkdir(parents=True)
    parameters = Path(metrics.__file__).parent / "niqe_parameters.mat"
    shutil.copy(parameters, cache / "niqe_modelparameters.mat")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "TORCH_HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    error = done.stdout.splitlines()[-1]
    assert error.startswith(f"iqa:musiq: {cache}/musiq_koniq_ckpt-e95806b9.pth is missing and can")
