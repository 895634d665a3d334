"""Fixtures that several test files share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from runs import ITERATIONS, NETWORK, run

from basicsr.utils import devices


@pytest.fixture(autouse=True)
def signal_handlers():
    """Restore the handlers that a command, called in this process, leaves behind."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real benchmark images, named by the environment variable DERAIN_SHARED."""
    folder = os.environ.get("DERAIN_SHARED")
    if not folder or not (Path(folder) / "data").is_dir():
        pytest.skip("DERAIN_SHARED does not name a folder with the benchmark images")
    return Path(folder) / "data"


def pytest_configure():
    """Let Ctrl-C interrupt, also in jobs for which the shell ignores it (`make test &`)."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_itemcollected(item):
    """Mark the tests that use a GPU where there is one, so that `-m cuda` selects them."""
    if "device" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.cuda)


@pytest.fixture(scope="session")
def device() -> torch.device:
    """A GPU where there is one, so that the same tests cover CUDA.

    There convolutions are not rounded to TF32, so that tolerances are those of float32.
    """
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def make_lmdb() -> Callable[[Path, dict[str, np.ndarray]], Path]:
    """Return a function that writes images by key into an LMDB in BasicSR's layout."""
    import cv2
    import lmdb

    def make(folder: Path, images: dict[str, np.ndarray]) -> Path:
        lines = []
        with lmdb.open(str(folder)) as environment, environment.begin(write=True) as transaction:
            for key, image in images.items():
                bgr = image[..., ::-1] if image.ndim == 3 else image
                transaction.put(key.encode(), cv2.imencode(".png", bgr)[1].tobytes())
                height, width, *channels = image.shape
                lines.append(f"{key}.png ({height},{width},{(channels or [1])[0]}) 1\n")
        (folder / "meta_info.txt").write_text("".join(lines))
        return folder

    return make


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    """A folder with photographs and the two option files."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "clean").mkdir()
    rng = np.random.default_rng(0)
    for i in range(5):
        smooth = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(smooth).resize((45, 37)).save(folder / "clean" / f"{i}.png")
    photographs = {"type": "SyntheticRainDataset", "dataroot_gt": "clean", "rain": "light"}
    train = {
        "name": "tiny",
        "model_type": "RestorationModel",
        "manual_seed": 7,
        "network_g": NETWORK,
        "datasets": {
            "train": {
                "name": "photographs",
                **photographs,
                "patches": [
                    {"size": 16, "batch_size": 4, "iters": 7},
                    {"size": 24, "batch_size": 4, "iters": 5},
                ],
                "num_worker_per_gpu": 1,
            },
            "val": {"name": "photographs-val", **photographs, "seed": 1},
        },
        "train": {
            "total_iter": ITERATIONS,
            "optim_g": {"type": "AdamW", "lr": 1e-3},
            "scheduler": {"type": "MultiStepLR", "milestones": [8], "gamma": 0.5},
            "ema_decay": 0.9,
            "losses": [{"type": "SSIMLoss"}, {"type": "MSELoss", "weight": 0.5, "stage": 0}],
        },
        "val": {"val_freq": 6, "protocols": ["matlab_y", "dtpnet"]},
        "logger": {"print_freq": 3, "save_checkpoint_freq": 4, "keep_checkpoints": 2},
    }
    test = {
        "name": "tiny-test",
        "network_g": NETWORK,
        "path": {"pretrain_network_g": "experiments/tiny/models/net_g_latest.safetensors"},
        "datasets": {
            "test_1": {"name": "photographs", **photographs, "seed": 2},
            "test_2": {"name": "real", "type": "ImageFolderDataset", "dataroot_lq": "clean"},
        },
        "val": {"protocols": ["matlab_y", "dtpnet"], "quantize": "truncate"},
    }
    (folder / "train.yml").write_text(yaml.safe_dump(train))
    (folder / "test.yml").write_text(yaml.safe_dump(test))
    return folder


@pytest.fixture(scope="session")
def trained(workplace):
    done = run("train.py", "-opt", "train.yml", cwd=workplace)
    assert done.returncode == 0, done.stderr
    return workplace / "experiments" / "tiny"


@pytest.fixture
def set_units(monkeypatch):
    """Return a function that says which precisions all devices multiply."""

    def set_to(*precisions):
        monkeypatch.setattr(devices, "has_units", lambda device, precision: precision in precisions)
        devices.usable_precision.cache_clear()

    yield set_to
    devices.usable_precision.cache_clear()
