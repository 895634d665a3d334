"""Networks on a GPU, with kernels, bf16, graphs and torch.compile, compared with the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from basicsr.archs import build_network, ops
from basicsr.data import PairedImageDataset
from basicsr.inference.captured import CapturedNetwork
from basicsr.inference.restorer import Restorer, RestorerSettings
from basicsr.metrics import measure
from basicsr.models.pretrained import network_with_weights

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

IMAGES = 5


@pytest.mark.parametrize("name", ["DTPNet-T", "Restormer"])
@pytest.mark.parametrize("way", ["eager", "kernels", "bf16", "graphs", "compiled"])
def test_results_equal_those_of_the_cpu(name, way, monkeypatch):
    monkeypatch.setattr(ops.dispatch, "HAS_TRITON", way != "eager")
    torch.manual_seed(0)
    x = torch.rand(1, 3, 64, 72)
    network = build_network({"type": name}).eval().to(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = network(x)
        function = network.cuda()
        if way == "graphs":
            function = CapturedNetwork(network)
        elif way == "compiled":
            function = torch.compile(network, dynamic=False)
        with torch.autocast("cuda", torch.bfloat16, enabled=way == "bf16"):
            for _ in range(3):
                result = function(x.cuda().contiguous(memory_format=torch.channels_last))
    error = (result.cpu() - expected).square().mean().sqrt()
    change = (expected - x).square().mean().sqrt()  # what the network does to the image
    assert error < (0.05 if way == "bf16" else 0.005) * change


@pytest.mark.shared_data
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_psnr_on_rain100l_equals_that_of_the_cpu(shared_data, precision):
    """Within 0.01 dB, for the authors' PReNet."""
    weights = shared_data / "weights" / "PReNet" / "Rain100L" / "PReNet6" / "net_latest.pth"
    network = network_with_weights({"type": "PReNet"}, weights)
    source = PairedImageDataset(str(shared_data / "Rain100L"), "Rain100L")

    def psnr(restorer: Restorer) -> float:
        scores = [
            measure(restorer(rainy), clean, "matlab_y")
            for rainy, clean in (source.sample(i) for i in range(IMAGES))
            if clean is not None
        ]
        return float(np.mean([each["psnr"] for each in scores]))

    expected = psnr(Restorer(network, torch.device("cpu")))
    on_gpu = Restorer(network, torch.device("cuda"), RestorerSettings(precision))
    assert abs(psnr(on_gpu) - expected) < 0.01
