"""The process that restores the photographs of the page."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from basicsr.archs import build_network
from basicsr.inference.restorer import Restorer
from basicsr.io.checkpoints import save_weights
from basicsr.io.images import read_image, to_levels, write_png
from basicsr.io.opening import LIMIT_VARIABLE
from basicsr.page import restoring
from basicsr.page.messages import Request, Step, WorkerSettings
from basicsr.page.restoring import PageRestorer, write_preview
from basicsr.page.worker import Worker
from basicsr.utils.errors import CheckpointError, DataError, UserError

NETWORK = {"type": "PReNet", "recurrent_iter": 2, "channels": 8}
IMAGE = np.random.default_rng(0).integers(90, 120, (21, 30, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network(NETWORK)


@pytest.fixture
def weights(tmp_path, network):
    file = tmp_path / "own.safetensors"
    save_weights(file, network.state_dict(), NETWORK)
    return file


@pytest.fixture
def restorer(tmp_path, monkeypatch):
    """A restorer in this process, whose memory is not limited."""
    monkeypatch.setattr(restoring, "limit_memory", lambda gib: None)
    restorer = PageRestorer(WorkerSettings(tmp_path, device="cpu"))
    return lambda request, report=lambda part: None: restorer(request, report)


@pytest.fixture
def request_for(tmp_path, weights):
    def make(source: Path) -> Request:
        return Request(source, (weights,), Path(tempfile.mkdtemp(dir=tmp_path)))

    return make


def test_a_photograph_is_restored_as_by_the_command(tmp_path, restorer, request_for, network):
    source = tmp_path / "before.png"  # the name of a preview
    write_png(source, IMAGE)
    parts = []
    restored = restorer(request_for(source), parts.append)
    assert parts[-1] == 1
    expected = to_levels(Restorer(network, torch.device("cpu"))(IMAGE), np.uint8)
    np.testing.assert_array_equal(read_image(restored.file), expected)
    assert restored.file.name == "before.png"
    assert (restored.height, restored.width) == (21, 30)
    assert restored.seconds > 0
    assert 0.1 < restored.memory_gib < 100
    assert np.abs(read_image(restored.before).astype(int) - IMAGE).mean() < 6
    assert np.abs(read_image(restored.after).astype(int) - expected).mean() < 6


def test_photographs_that_cannot_be_used_are_named(tmp_path, restorer, request_for, monkeypatch):
    monkeypatch.setenv(LIMIT_VARIABLE, "0.01")
    large, broken = tmp_path / "large.png", tmp_path / "broken.jpg"
    write_png(large, np.zeros((101, 100, 3), np.uint8))
    broken.write_text("no photograph")
    with pytest.raises(DataError, match=r"large.png: too large .* the limit is 0.01 megapixels"):
        restorer(request_for(large))
    with pytest.raises(DataError, match=r"broken.jpg: not a readable image"):
        restorer(request_for(broken))


def test_a_changed_weights_file_is_read_again(tmp_path, restorer, request_for, network, weights):
    source = tmp_path / "a.png"
    write_png(source, IMAGE)
    first = read_image(restorer(request_for(source)).file)
    changed = {key: 2 * value for key, value in network.state_dict().items()}
    save_weights(weights, changed, NETWORK)
    second = restorer(request_for(source))
    assert (read_image(second.file) != first).any()
    weights.write_text("no weights")
    with pytest.raises(CheckpointError, match="damaged"):
        restorer(request_for(source))


def test_the_time_left_is_estimated():
    assert Step(3, 0.009).time_left == ""
    assert Step(30, 0.5).time_left == "about 30 s left"
    assert Step(60, 0.25).time_left == "about 3 min left"


def test_previews_have_8_bits_and_a_limited_size(tmp_path, monkeypatch):
    monkeypatch.setattr(restoring, "PREVIEW_PIXELS", 200)
    write_png(tmp_path / "deep.png", np.full((20, 30, 3), 40_000, np.uint16))
    write_preview(tmp_path / "deep.png", tmp_path / "preview.jpg")
    with Image.open(tmp_path / "preview.jpg") as preview:
        assert preview.size == (17, 11)
        assert preview.getpixel((0, 0)) == (156, 156, 156)


def test_the_process_survives_its_errors_and_is_replaced_after_a_stop(tmp_path, request_for):
    write_png(tmp_path / "a.png", IMAGE)
    (tmp_path / "b.png").write_text("no photograph")
    worker = Worker(WorkerSettings(tmp_path / "page", device="cpu", memory_gib=2))
    try:
        with pytest.raises(UserError, match=r"^b.png: not a readable image"):
            list(worker.restore(request_for(tmp_path / "b.png")))
        process = worker._process
        steps = list(worker.restore(request_for(tmp_path / "a.png"), interval=0.001))
        assert worker._process is process
        assert steps[-1].file.exists()
        assert all(isinstance(step, Step) for step in steps[:-1])
        assert steps[-2].part == 1

        waiting = worker.restore(request_for(tmp_path / "a.png"), interval=0)
        next(waiting)
        waiting.close()
        assert not process.is_alive()

        worker.start().close()  # as if the process had died
        worker._connection = DeadConnection()
        with pytest.raises(UserError, match=r"^a.png: the process that restores it was killed"):
            list(worker.restore(request_for(tmp_path / "a.png")))
    finally:
        worker.stop()


class DeadConnection:
    """Connection whose other end is closed."""

    def send(self, request):
        raise BrokenPipeError

    def close(self):
        pass


def test_memory_is_limited(tmp_path, request_for):
    """A photograph of 40 megapixels does not fit into 0.1 GiB."""
    Image.new("RGB", (8000, 5000)).save(tmp_path / "large.png")
    worker = Worker(WorkerSettings(tmp_path / "page", device="cpu", memory_gib=0.1))
    try:
        with pytest.raises(UserError, match=r"^large.png: .*memory"):
            list(worker.restore(request_for(tmp_path / "large.png")))
    finally:
        worker.stop()


def test_gray_photographs_may_have_weights_of_their_own(tmp_path, restorer, weights):
    options = {"type": "PReNet", "recurrent_iter": 1, "channels": 8, "in_channels": 1}
    network = build_network({**options, "out_channels": 1})
    gray = tmp_path / "gray.safetensors"
    save_weights(gray, network.state_dict(), {**options, "out_channels": 1})
    write_png(tmp_path / "gray.png", IMAGE[..., 0])
    restored = restorer(Request(tmp_path / "gray.png", (weights, gray), tmp_path))
    expected = to_levels(Restorer(network, torch.device("cpu"))(IMAGE[..., :1]), np.uint8)
    np.testing.assert_array_equal(read_image(restored.file, "gray"), expected)
