import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from basicsr.archs import RestorationNetwork, build_network
from basicsr.archs.strip_storage import MemoryBudget
from basicsr.inference.restorer import Restorer, RestorerSettings, pad_to
from basicsr.io.images import to_levels
from basicsr.utils.devices import memory_in_use
from basicsr.utils.errors import DataError, NonFiniteError, OptionsError

CPU = torch.device("cpu")


class Recorder(RestorationNetwork):
    """Identity that records the sizes of its inputs."""

    size_multiple = 8

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, x):
        self.sizes.append(tuple(x.shape[2:]))
        return x


def picture(height, width):
    return np.random.default_rng(height * 1000 + width).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )


@given(st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_any_size_is_padded_for_the_network_and_cropped_back(height, width):
    net = Recorder()
    image = picture(height, width)
    restored = Restorer(net, CPU)(image)
    assert restored.shape == image.shape
    assert np.array_equal(to_levels(restored, np.uint8), image)
    assert net.sizes == [(-(-height // 8) * 8, -(-width // 8) * 8)]


def test_all_16_bit_levels_reach_the_network(device):
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1).repeat(3, axis=2)
    restored = Restorer(Recorder(), device)(levels)
    assert np.array_equal((restored * 65535).round().astype(np.uint16), levels)


def test_float_images_reach_the_network_unchanged(device):
    """Noise leaves [0, 1], and is not clipped before the network sees it."""
    seen = []

    class Shrinking(RestorationNetwork):
        def forward(self, x):
            seen.append(x)
            return x / 4 + 0.5

    image = np.random.default_rng(0).normal(0.5, 0.5, (9, 7, 3)).astype(np.float32)
    assert image.min() < 0
    assert image.max() > 1
    restored = Restorer(Shrinking(), device)(image)
    assert restored.dtype == np.float32
    assert np.array_equal(seen[0][0].permute(1, 2, 0).cpu().numpy(), image)
    assert np.abs(restored - (image / 4 + 0.5)).max() < 1e-6


class Views(RestorationNetwork):
    """Mean of two views: 2 C input channels, C output channels."""

    size_multiple = 4

    def __init__(self, channels=3):
        super().__init__(2 * channels, channels)

    def forward(self, x):
        left, right = x.chunk(2, dim=1)
        return (left + right) / 2


@pytest.mark.parametrize(
    "how",
    [
        RestorerSettings(),
        RestorerSettings(tile=16, tile_overlap=4),
        RestorerSettings(self_ensemble=True),
        RestorerSettings(tile=16, tile_overlap=4, self_ensemble=True),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_input_and_output_may_differ_in_channels(how, dtype, channels):
    most = np.iinfo(dtype).max
    views = np.random.default_rng(0).integers(0, most, (21, 34, 2 * channels), dtype, endpoint=True)
    restored = Restorer(Views(channels), CPU, how)(views)
    left, right = np.split(views / most, 2, axis=2)
    assert restored.shape == (21, 34, channels)
    assert np.abs(restored - (left + right) / 2).max() < 1e-6


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"inp_channels": 1, "out_channels": 1}, (40, 27, 1)),
        ({"inp_channels": 6, "dual_pixel_task": True}, (40, 27, 6)),
    ],
)
@pytest.mark.parametrize("features", ["memory", "disk"])
def test_strips_of_images_with_other_channels(options, shape, features, device, monkeypatch):
    torch.manual_seed(0)
    small = {"dim": 8, "num_blocks": (1, 1, 1, 1), "num_refinement_blocks": 1}
    net = build_network({"type": "Restormer", **small, **options})
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    whole = Restorer(net, device)(image)
    if features == "disk":
        monkeypatch.setattr(MemoryBudget, "has_room", lambda self, size: False)
    limit = memory_in_use(device) / 2**30 + 0.25
    in_strips = Restorer(net, device, RestorerSettings(memory_gib=limit, features=features))(image)
    assert in_strips.shape == whole.shape == (*shape[:2], net.out_channels)
    assert np.abs(in_strips - whole).max() < 1e-5


def test_another_number_of_channels_is_a_one_line_error():
    with pytest.raises(DataError, match=r"^Views: takes 6-channel images, not 3-channel images$"):
        Restorer(Views(), CPU)(picture(8, 8))


def test_padding_reflects_and_then_repeats():
    x = torch.tensor([[1.0, 2.0, 3.0]])[None, None]
    padded = pad_to(x, 8, 8)
    assert padded.shape == (1, 1, 8, 8)
    assert padded[0, 0, 0].tolist() == [1, 2, 3, 2, 1, 1, 1, 1]
    assert torch.equal(padded[0, 0], padded[0, 0, :1].expand(8, 8))


@pytest.mark.parametrize(("height", "width"), [(20, 20), (33, 70), (64, 17)])
def test_tiles_of_a_local_network_give_the_whole_image(height, width):
    image = picture(height, width)
    net = Recorder()
    restored = Restorer(net, CPU, RestorerSettings(tile=24, tile_overlap=8))(image)
    assert np.abs(restored - image / 255).max() < 1e-6
    assert max(max(size) for size in net.sizes) <= 24
    assert len(net.sizes) > 1 or max(height, width) <= 24


def test_tiles_warn_that_they_change_the_result(caplog):
    with caplog.at_level(logging.WARNING, "basicsr"):
        Restorer(Recorder(), CPU, RestorerSettings(tile=24))
    assert "more than 24 pixels a side are restored in pieces" in caplog.text
    assert "which changes the result" in caplog.text


def test_self_ensemble_averages_over_the_eight_views():
    class Ramp(RestorationNetwork):
        """Network that adds a horizontal ramp, so that the eight views differ."""

        def forward(self, x):
            return x + torch.linspace(-0.1, 0.1, x.shape[3])

    image = np.full((12, 12, 3), 128, np.uint8)
    once = Restorer(Ramp(), CPU)(image)
    assert np.ptp(once) > 0.15
    averaged = Restorer(Ramp(), CPU, RestorerSettings(self_ensemble=True))(image)
    assert np.abs(averaged - 128 / 255).max() < 1e-6


def test_self_ensemble_of_mirror_images_is_never_turned():
    class Falling(RestorationNetwork):
        """Network that adds a ramp to the right, which mirroring averages out, and one down."""

        def forward(self, x):
            height, width = x.shape[2:]
            return x + torch.linspace(-0.1, 0.1, width) + torch.linspace(0, 0.1, height)[:, None]

    image = np.full((12, 16, 3), 128, np.uint8)
    averaged = Restorer(Falling(), CPU, RestorerSettings(self_ensemble="mirror"))(image)
    expected = 128 / 255 + np.linspace(0, 0.1, 12)[:, None, None]
    assert np.abs(averaged - expected).max() < 1e-6


def test_self_ensemble_of_rectangular_images():
    image = picture(10, 23)
    restored = Restorer(Recorder(), CPU, RestorerSettings(self_ensemble=True))(image)
    assert np.abs(restored - image / 255).max() < 1e-6


def test_the_result_is_clamped():
    class Bright(RestorationNetwork):
        def forward(self, x):
            return x * 4 - 1

    restored = Restorer(Bright(), CPU)(picture(9, 9))
    assert restored.min() == 0
    assert restored.max() == 1


def test_quantize_rounds_or_truncates():
    values = np.array([0, 0.4 / 255, 0.6 / 255, 1.9 / 255, 1], np.float32)
    assert to_levels(values, np.uint8, "round").tolist() == [0, 0, 1, 2, 255]
    assert to_levels(values, np.uint8, "truncate").tolist() == [0, 0, 0, 1, 255]


class Convolution(RestorationNetwork):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return self.conv(x)


def test_bf16_stays_close(device, set_units):
    set_units("fp32", "bf16")  # perhaps emulated
    torch.manual_seed(0)
    net = Convolution()
    image = picture(16, 16)
    exact = Restorer(net, device)(image)
    rough = Restorer(net, device, RestorerSettings(precision="bf16"))(image)
    assert 0 < np.abs(exact - rough).max() < 0.02


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_what_would_be_emulated_is_computed_in_float32(precision, device, set_units, caplog):
    set_units("fp32")
    net, image = Convolution(), picture(16, 16)
    restorer, _ = (Restorer(net, device, RestorerSettings(precision=precision)) for _ in range(2))
    np.testing.assert_array_equal(restorer(image), Restorer(net, device)(image))
    assert restorer.settings.precision == "fp32"
    (message,) = caplog.messages
    assert message.startswith("precision: this ")
    assert f"has no units for {precision}, and would emulate it slowly" in message


def tiny_network():
    torch.manual_seed(0)
    return build_network(
        {"type": "DTPNet", "dim": 8, "num_blocks": (1, 1, 1, 1), "recurrent_channels": 8}
    )


@pytest.mark.parametrize("features", ["memory", "disk"])
@pytest.mark.parametrize(("height", "width"), [(75, 50), (1, 9), (130, 33)])
def test_a_memory_limit_does_not_change_the_result(device, height, width, features, monkeypatch):
    net, image = tiny_network(), picture(height, width)
    whole = Restorer(net, device)(image)
    limit = memory_in_use(device) / 2**30 + 0.25
    if features == "disk":
        monkeypatch.setattr(MemoryBudget, "has_room", lambda self, size: False)
    settings = RestorerSettings(memory_gib=limit, features=features)
    limited = Restorer(net, device, settings)(image)
    assert np.abs(limited - whole).max() < 1e-5


def test_a_memory_limit_that_is_too_small_is_one_line(device):
    restorer = Restorer(tiny_network(), device, RestorerSettings(memory_gib=0.001))
    with pytest.raises(OptionsError, match=r"^memory: at least \d+\.\d\d GiB are .* on disk$"):
        restorer(picture(64, 64))


def test_memory_budget_without_strips_suggests_tiles():
    with pytest.raises(OptionsError, match=r"memory_gib: Recorder cannot .* pieces \(tile: 512\)"):
        Restorer(Recorder(), CPU, RestorerSettings(memory_gib=4))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
        MemoryError("dwconv: cannot allocate memory"),
    ],
)
def test_out_of_memory_falls_back_to_strips_with_a_warning(caplog, monkeypatch, error):
    net, image = tiny_network(), picture(24, 40)
    expected = Restorer(net, CPU)(image)
    heights = []
    forward = net.stem.forward

    def full_at_first(x):
        heights.append(x.shape[2])
        if len(heights) == 1:
            raise error
        return forward(x)

    monkeypatch.setattr(net.stem, "forward", full_at_first)
    with caplog.at_level(logging.WARNING, "basicsr"):
        restored = Restorer(net, CPU)(image)
    # the whole image; small ones for the use of maps and of memory; 8 rows and the rest, with halos
    assert heights == [24, 8, 8, 24, 24]
    assert np.abs(restored - expected).max() < 1e-5
    assert "40 x 24 pixels do not fit into memory at once; they are computed in str" in caplog.text


def test_other_errors_do_not_fall_back_to_strips():
    class Broken(Recorder):
        supports_strips = True

        def forward(self, x):
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        Restorer(Broken(), CPU)(picture(8, 8))


MEASURE = """
import numpy as np, sys, torch
from basicsr.archs import build_network
from basicsr.inference.restorer import Restorer, RestorerSettings
torch.set_num_threads(1)
net = build_network({"type": "DTPNet-T", "num_blocks": (1, 1, 1, 1), "recurrent_iter": 1})
if sys.argv[1] == "whole":
    with torch.inference_mode():
        net.eval()(torch.zeros(1, 3, 2048, 2048))
else:
    settings = RestorerSettings(memory_gib=float(sys.argv[1]))
    restorer = Restorer(net, torch.device("cpu"), settings)
    restorer(np.zeros((2048, 2048, 3), np.uint8))
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="VmHWM is Linux's")
def test_resident_memory_stays_below_the_budget():
    def peak_gib(limit):
        command = [sys.executable, "-c", MEASURE, str(limit)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return int(ran.stdout) / 2**20

    assert peak_gib(2.4) < 2.4
    assert peak_gib("whole") > 2.4


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("settings", [{}, {"tile": 16}, {"self_ensemble": True}])
def test_an_output_that_is_not_finite_is_an_error(bad, settings):
    """Clipping would make inf white and NaN black."""

    class Overflowing(Recorder):
        def forward(self, x):
            return torch.where(x > 0.5, bad, x)

    restorer = Restorer(Overflowing(), CPU, RestorerSettings(**settings))
    dark = np.zeros((40, 33, 3), np.uint8)
    assert not restorer(dark).any()
    dark[39, 32, 2] = 255
    with pytest.raises(NonFiniteError, match="Overflowing restored it to NaN or infinite values"):
        restorer(dark)
