from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from runs import NETWORK
from scipy.io import loadmat, savemat

from basicsr.archs import build_network
from basicsr.inference.restorer import Restorer
from basicsr.io.checkpoints import save_weights


@pytest.fixture
def restorer(tmp_path) -> Restorer:
    """Restorer of the network whose weights are in tmp_path / "net.safetensors"."""
    torch.manual_seed(0)
    network = build_network(NETWORK)
    save_weights(tmp_path / "net.safetensors", network.state_dict(), NETWORK)
    return Restorer(network, torch.device("cpu"))


def _submit(run_script, benchmark: str, folder: Path):
    return run_script(
        *("submit", benchmark, "--dataroot", folder, "--output", folder / "out"),
        *("--weights", folder / "net.safetensors", "--device", "cpu"),
    )


def test_sidd_result_holds_the_unrounded_output(run_script, restorer, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    noisy = np.random.default_rng(0).integers(0, 256, (2, 2, 16, 16, 3), dtype=np.uint8)
    savemat(tmp_path / "BenchmarkNoisyBlocksSrgb.mat", {"BenchmarkNoisyBlocksSrgb": noisy})
    code, printed, err = _submit(run_script, "SIDD", tmp_path)
    assert code == 0, err
    assert printed == f"4 blocks in {tmp_path / 'out' / 'Idenoised.mat'}\n"
    result = loadmat(tmp_path / "out" / "Idenoised.mat")["Idenoised"]
    assert (result.shape, result.dtype) == (noisy.shape, np.float32)
    np.testing.assert_allclose(result[1, 0], restorer(noisy[1, 0]), atol=1e-6)


def test_published_weights_need_their_type(run_script, tmp_path):
    options = {"type": "Restormer", "dim": 8, "num_blocks": [1, 1, 1, 1], "heads": [1, 1, 1, 1]}
    torch.save({"params": build_network(options).state_dict()}, tmp_path / "net.pth")
    noisy = np.zeros((1, 1, 16, 16, 3), np.uint8)
    savemat(tmp_path / "BenchmarkNoisyBlocksSrgb.mat", {"BenchmarkNoisyBlocksSrgb": noisy})
    call = ("submit", "SIDD", "--dataroot", tmp_path, "--output", tmp_path / "out")
    call += ("--weights", tmp_path / "net.pth", "--device", "cpu")
    code, _, err = run_script(*call)
    assert code == 2
    assert "name it with --type Restormer" in err
    code, printed, err = run_script(*call, "--type", "Restormer")
    assert code == 0, err
    assert printed.startswith("1 blocks in ")


def test_dnd_images_that_are_there_are_kept(run_script, restorer, tmp_path):
    h5py = pytest.importorskip("h5py")
    images = [np.random.default_rng(seed).random((24, 32, 3), np.float32) for seed in range(2)]
    (tmp_path / "images_srgb").mkdir()
    with h5py.File(tmp_path / "info.mat", "w") as file:
        cell = file.create_dataset("info/boundingboxes", (1, 2), h5py.ref_dtype)
        for number in range(2):
            table = np.array([[1.0, 1, 16, 16], [9, 17, 24, 32]])
            cell[0, number] = file.create_dataset(f"#refs#/{number}", data=table.T).ref
    for number, image in enumerate(images, 1):
        with h5py.File(tmp_path / "images_srgb" / f"{number:04d}.mat", "w") as file:
            file["InoisySRGB"] = image.T
    code, printed, err = _submit(run_script, "DND", tmp_path)
    assert code == 0, err
    assert printed == f"2 images in {tmp_path / 'out'}\n"
    for number, image in enumerate(images, 1):
        cells = loadmat(tmp_path / "out" / f"{number:04d}.mat")["Idenoised"]
        assert cells.shape == (1, 2)
        np.testing.assert_allclose(cells[0, 1], restorer(image[8:24, 16:32]), atol=1e-6)
    first = tmp_path / "out" / "0001.mat"
    first.write_bytes(b"kept")
    (tmp_path / "out" / "0002.mat").unlink()
    code, printed, err = _submit(run_script, "DND", tmp_path)
    assert code == 0, err
    assert "2 images in" in printed
    assert "1 of them from an earlier call" in printed
    assert first.read_bytes() == b"kept"
    assert (tmp_path / "out" / "0002.mat").exists()


def test_networks_of_other_channels_are_refused(run_script, tmp_path):
    options = {**NETWORK, "in_channels": 1, "out_channels": 1}
    save_weights(tmp_path / "net.safetensors", build_network(options).state_dict(), options)
    code, _, err = _submit(run_script, "SIDD", tmp_path)
    assert code == 2
    assert "restores 1 channels to 1; the benchmark's images have three" in err
