from __future__ import annotations

import numpy as np
import pytest
from scipy.io import savemat

from basicsr.data import build_dataset
from basicsr.utils.errors import DataError


@pytest.fixture
def blocks(tmp_path, monkeypatch) -> dict[str, np.ndarray]:
    """Noisy and true blocks, written to tmp_path as the benchmark's files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    arrays = {}
    for name in ("ValidationNoisyBlocksSrgb", "ValidationGtBlocksSrgb", "BenchmarkNoisyBlocksSrgb"):
        arrays[name] = rng.integers(0, 256, (2, 3, 8, 8, 3), dtype=np.uint8)
        savemat(tmp_path / f"{name}.mat", {name: arrays[name]}, do_compression=True)
    return arrays


def test_validation_blocks_are_pairs(blocks, tmp_path):
    dataset = build_dataset({"type": "SIDDBlocksDataset", "dataroot": str(tmp_path)})
    assert dataset.names == ["01_01", "01_02", "01_03", "02_01", "02_02", "02_03"]
    assert dataset.has_gt
    assert dataset.lq_dtype == np.uint8
    lq, gt = dataset.sample(4)
    np.testing.assert_array_equal(lq, blocks["ValidationNoisyBlocksSrgb"][1, 1])
    np.testing.assert_array_equal(gt, blocks["ValidationGtBlocksSrgb"][1, 1])
    dataset.check()
    assert dataset.fingerprint()["images"] == 6


def test_benchmark_blocks_have_no_ground_truth(blocks, tmp_path):
    dataset = build_dataset(
        {"type": "SIDDBlocksDataset", "dataroot": str(tmp_path), "part": "benchmark"}
    )
    assert not dataset.has_gt
    lq, gt = dataset.sample(0)
    assert gt is None
    np.testing.assert_array_equal(lq, blocks["BenchmarkNoisyBlocksSrgb"][0, 0])


def test_files_must_fit(blocks, tmp_path):
    name = "ValidationGtBlocksSrgb"
    savemat(tmp_path / f"{name}.mat", {name: blocks[name][:1]})
    with pytest.raises(DataError, match=r"blocks of \(2, 3, 8, 8, 3\) but .* of \(1, 3, 8, 8, 3\)"):
        build_dataset({"type": "SIDDBlocksDataset", "dataroot": str(tmp_path)})
    (tmp_path / f"{name}.mat").unlink()
    with pytest.raises(DataError, match=r"ValidationGtBlocksSrgb\.mat: no such file"):
        build_dataset({"type": "SIDDBlocksDataset", "dataroot": str(tmp_path)})
