from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from basicsr.archs import build_network
from basicsr.inference import captured
from basicsr.inference.captured import CapturedNetwork


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """Replace graph capture by a log of captures and replays, so that no GPU is needed."""
    log: list[str] = []

    def capture(network, x, pool):
        log.append(f"capture {x.shape[-1]}")
        return lambda batch: log.append(f"replay {batch.shape[-1]}")

    monkeypatch.setattr(captured, "capture", capture)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    return log


def pictures(*sides: int) -> list[torch.Tensor]:
    with FakeTensorMode():
        return [torch.empty(1, 3, 8, side, device="cuda") for side in sides]


def test_the_network_is_called_directly_on_a_cpu(calls):
    network = nn.Conv2d(3, 3, 1).eval()
    x = torch.rand(1, 3, 4, 4)
    replaying = CapturedNetwork(network)
    for _ in range(3):
        torch.testing.assert_close(replaying(x), network(x))
    assert calls == []


def test_a_size_is_captured_when_it_occurs_again(calls):
    replaying = CapturedNetwork(lambda x: calls.append(f"plain {x.shape[-1]}"))
    a, b = pictures(1, 2)
    for x in (a, b, a, a, b):
        replaying(x)
    assert calls == [
        "plain 1",
        "plain 2",
        "capture 1",
        "replay 1",
        "replay 1",
        "capture 2",
        "replay 2",
    ]


def test_precisions_have_separate_graphs(calls, monkeypatch):
    replaying = CapturedNetwork(lambda x: calls.append("plain"))
    (x,) = pictures(1)
    for precision in (None, torch.bfloat16, torch.bfloat16):
        monkeypatch.setattr(captured, "autocast_type", lambda device_type, now=precision: now)
        replaying(x)
    assert calls == ["plain", "plain", "capture 1", "replay 1"]


def test_the_least_recently_used_graph_is_dropped(calls):
    replaying = CapturedNetwork(lambda x: calls.append(f"plain {x.shape[-1]}"), limit=2)
    a, b, c = pictures(1, 2, 3)
    for x in (a, a, b, b, a, c, c):
        replaying(x)
    assert len(replaying.graphs) == 2
    calls.clear()
    for x in (a, c, b, b):
        replaying(x)
    assert calls == ["replay 1", "replay 3", "plain 2", "capture 2", "replay 2"]


def test_large_images_are_not_captured(calls, monkeypatch):
    monkeypatch.setattr(captured, "MOST_PIXELS", 20)
    replaying = CapturedNetwork(lambda x: calls.append("plain"))
    for x in pictures(3, 3):
        replaying(x)
    assert calls == ["plain", "plain"]


def test_the_network_is_called_directly_where_a_graph_has_no_memory(calls, monkeypatch):
    def capture(network, x, pool):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(captured, "capture", capture)
    replaying = CapturedNetwork(lambda x: calls.append("plain"))
    for x in pictures(1, 1, 1):
        replaying(x)
    assert calls == ["plain"] * 3


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_replays_equal_the_network(precision):
    torch.manual_seed(0)
    network = build_network({"type": "DTPNet-T"}).cuda().eval()
    network.to(memory_format=torch.channels_last)
    replaying = CapturedNetwork(network)
    with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
        for side in (32, 48):
            for _ in range(3):
                x = torch.rand(1, 3, side, 40, device="cuda")
                with torch.inference_mode():
                    expected = network(x)
                torch.testing.assert_close(replaying(x), expected, rtol=1e-3, atol=1e-3)
        with torch.no_grad():
            network.to_image.weight.mul_(0)  # a graph reads the current weights
        with torch.inference_mode():
            torch.testing.assert_close(replaying(x), network(x), rtol=1e-3, atol=1e-3)
    assert len(replaying.graphs) == 2
