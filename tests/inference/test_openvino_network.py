"""Networks computed by OpenVINO, compared with PyTorch."""

import builtins
import logging
import stat

import numpy as np
import pytest
import torch

from basicsr.archs import RestorationNetwork, build_network
from basicsr.inference import openvino_network
from basicsr.inference.restorer import Restorer, RestorerSettings
from basicsr.utils.devices import BACKENDS
from basicsr.utils.errors import OptionsError

CPU = torch.device("cpu")
TINY = {"dim": 8, "num_blocks": (1, 1, 1, 1), "num_refinement_blocks": 1, "heads": (1, 1, 2, 2)}
NETWORKS = {
    "DTPNet": {
        "type": "DTPNet",
        "in_channels": 1,
        "out_channels": 1,
        **TINY,
        "recurrent_iter": 2,
        "recurrent_channels": 8,
    },
    "Restormer": {"type": "Restormer", **TINY},
    "PReNet": {"type": "PReNet", "recurrent_iter": 2, "channels": 8},
    "DIDMDNDerainer": {"type": "DIDMDNDerainer", "label": 2},
}


@pytest.fixture(autouse=True, scope="module")
def shared_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "dtpnet-derain"


def network(name="PReNet"):
    torch.manual_seed(0)
    return build_network(NETWORKS[name]).eval()


def image(height, width, channels=3):
    return np.random.default_rng(0).random((height, width, channels), dtype=np.float32)


def both(net, **settings):
    return (Restorer(net, CPU, RestorerSettings(backend=each, **settings)) for each in BACKENDS)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_results_are_those_of_pytorch(name):
    pytest.importorskip("openvino")
    net = network(name)
    in_pytorch, in_openvino = both(net)
    for height, width in ((33, 50), (90, 21), (7, 5)):
        lq = image(height, width, net.in_channels)
        restored = in_openvino(lq)
        assert restored.dtype == np.float32
        np.testing.assert_allclose(restored, in_pytorch(lq), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_the_label_that_didmdn_estimates_is_computed_for_each_image(cache):
    pytest.importorskip("openvino")
    net = build_network({"type": "DIDMDN"}).eval()
    openvino_network.OpenVINONetwork(net, "fp32")  # compares the outputs
    for file in cache.iterdir():  # the network is another one from here on, with the same weights
        file.unlink()
    net.density_logits = lambda x: torch.stack([0.5 - x.mean(), x.mean() - 0.5])[None]
    in_pytorch, in_openvino = both(net)
    for lq in (image(64, 32) / 4, 1 - image(64, 32) / 4):
        np.testing.assert_allclose(in_openvino(lq), in_pytorch(lq), rtol=0, atol=1e-4)


def test_tiles_and_self_ensemble():
    pytest.importorskip("openvino")
    in_pytorch, in_openvino = both(network(), tile=24, tile_overlap=8, self_ensemble=True)
    lq = image(40, 30)
    np.testing.assert_allclose(in_openvino(lq), in_pytorch(lq), rtol=0, atol=1e-4)


def test_bf16():
    pytest.importorskip("openvino")
    net = network("Restormer")
    expected = Restorer(net, CPU)(image(40, 32))
    _, in_openvino = both(net, precision="bf16")
    np.testing.assert_allclose(in_openvino(image(40, 32)), expected, rtol=0, atol=0.02)


def test_a_network_is_converted_once(monkeypatch, cache):
    pytest.importorskip("openvino")
    first = openvino_network.OpenVINONetwork(network(), "fp32")
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert sorted(file.suffix for file in cache.iterdir()) == [".bin", ".xml"]
    monkeypatch.setattr(openvino_network, "converted", None)  # fails if called
    second = openvino_network.OpenVINONetwork(network(), "fp32")
    x = torch.rand(1, 3, 30, 20)
    assert torch.equal(first(x), second(x))


def test_other_weights_are_converted_and_the_oldest_are_removed(monkeypatch, cache):
    pytest.importorskip("openvino")
    monkeypatch.setattr(openvino_network, "CACHED_NETWORKS", 1)
    net, x = network(), torch.rand(1, 3, 30, 20)
    first = openvino_network.OpenVINONetwork(net, "fp32")(x)
    with torch.no_grad():
        next(net.parameters()).mul_(2)
        expected = net(x)
    second = openvino_network.OpenVINONetwork(net, "fp32")(x)
    assert not torch.allclose(first, second, atol=1e-3)
    torch.testing.assert_close(second, expected, rtol=0, atol=1e-4)
    assert sorted(file.suffix for file in cache.iterdir()) == [".bin", ".xml"]


def test_files_that_others_may_write_are_not_used(cache):
    pytest.importorskip("openvino")
    openvino_network.OpenVINONetwork(network(), "fp32")
    for file in cache.glob("*.bin"):
        file.write_bytes(bytes(file.stat().st_size))
        file.chmod(0o666)
    again = openvino_network.OpenVINONetwork(network(), "fp32")
    x = torch.rand(1, 3, 30, 20)
    torch.testing.assert_close(again(x), network()(x), rtol=0, atol=1e-4)


def test_images_without_enough_memory_are_left_to_strips(caplog):
    pytest.importorskip("openvino")
    net = network("Restormer")
    lq = image(64, 64)
    _, restorer = both(net, memory_gib=64)
    # 2 x 21 float32 hidden channels of the feed-forward network are the widest features
    assert 4 * 42 < restorer.openvino.bytes_per_pixel < 4 * 42 * 8
    assert restorer._fits_openvino(torch.zeros(1, 3, 64, 64))
    restorer.openvino.bytes_per_pixel = 2**40
    restorer.openvino.run = None  # fails if called
    with caplog.at_level(logging.WARNING, "basicsr"):
        restored = restorer(lq)
    assert "64 x 64 pixels: computed by PyTorch in strips, because OpenVINO" in caplog.text
    np.testing.assert_allclose(restored, Restorer(net, CPU)(lq), rtol=0, atol=1e-5)


class Fixed(RestorationNetwork):
    """Network whose trace holds the size of its image."""

    def __init__(self):
        super().__init__()
        self._options = {}

    def forward(self, x):
        return x * float(x.shape[2])


def test_a_network_that_depends_on_the_size_in_python_is_refused(cache):
    pytest.importorskip("openvino")
    with pytest.raises(OptionsError, match=r"^backend: OpenVINO cannot compute Fixed \(at .*; use"):
        openvino_network.OpenVINONetwork(Fixed().eval(), "fp32")
    assert not list(cache.glob("*"))


def test_a_network_that_decides_by_the_size_is_refused():
    pytest.importorskip("openvino")
    blocks = {"middle_blk_num": 1, "enc_blk_nums": (1,), "dec_blk_nums": (1,)}
    net = build_network({"type": "NAFNetLocal", "width": 4, **blocks}).eval()
    with pytest.raises(OptionsError, match=r"\(nafnet_arch.py, line \d+ depends on the size of"):
        openvino_network.converted(net)


class Eigenvalues(Fixed):
    def forward(self, x):
        return torch.linalg.eigvalsh(x @ x.transpose(2, 3))


def test_an_unknown_operation_is_named():
    pytest.importorskip("openvino")
    with pytest.raises(OptionsError, match=r"cannot compute Eigenvalues \(.*eigvalsh.*pytorch$"):
        openvino_network.converted(Eigenvalues().eval())


def test_without_the_package(monkeypatch):
    imported = builtins.__import__

    def without(name, *rest):
        if name == "openvino":
            raise ModuleNotFoundError(name="openvino")
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(OptionsError, match=r"pip install \"dtpnet-derain\[openvino\]\""):
        tuple(both(network()))


@pytest.mark.parametrize(
    ("settings", "device", "message"),
    [
        ({"precision": "fp16"}, "cpu", "precision: OpenVINO computes fp32 or bf16"),
        ({}, "meta", "backend: openvino computes on the CPU, not on meta"),
    ],
)
def test_unsupported_settings(settings, device, message):
    with pytest.raises(OptionsError, match=message):
        Restorer(network(), torch.device(device), RestorerSettings(backend="openvino", **settings))


def test_unknown_backend():
    with pytest.raises(OptionsError, match="backend: 'jax' is none of pytorch, openvino"):
        Restorer(network(), CPU, RestorerSettings(backend="jax"))
