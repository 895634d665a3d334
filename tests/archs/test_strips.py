"""Results of strips equal those of the whole image, within the memory budget."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from basicsr.archs import build_network, strip_storage
from basicsr.archs.strip_progress import progress_to
from basicsr.archs.strip_storage import MemoryBudget, RowStorage
from basicsr.archs.strips import (
    Run,
    StripMap,
    forward_in_strips,
    row_local,
    run_in_strips,
    strip_sums,
)
from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import ARCH_REGISTRY

TINY = {"dim": 8, "num_blocks": (2, 1, 1, 1), "num_refinement_blocks": 1}
NETWORKS: list[dict[str, Any]] = [
    {"type": "DTPNet", **TINY, "recurrent_channels": 6},
    {"type": "DTPNet", **TINY, "recurrent_channels": 6, "image_residual": True},
    {"type": "DTPNet", **TINY, "stem": "conv", "blocks": "conv", "recurrent_iter": 0},
    {"type": "Restormer", **TINY},
    {"type": "Restormer", **TINY, "LayerNorm_type": "BiasFree", "bias": True},
    {"type": "PReNet", "channels": 6},
    {"type": "PReNet_GRU", "channels": 6},
    {"type": "PRN_r", "channels": 6},
    {"type": "Restormer", **TINY, "inp_channels": 6, "dual_pixel_task": True},
    {"type": "DTPNet", **TINY, "in_channels": 6, "recurrent_channels": 6},
    {"type": "PReNet_x", "in_channels": 6, "channels": 6},
]


class Fixed(MemoryBudget):
    """Budget that always allows strips of the same height."""

    def __init__(self, height: int, features: Any = "memory") -> None:
        super().__init__(0 if features == "disk" else float("inf"), features)
        self.height = height

    def strip_height(self, row_bytes: float, halo: int, height: int) -> int:
        return self.height

    def require(self, least: float) -> None:
        """Accept any need, as maps may all be on disk."""


@pytest.mark.parametrize("options", NETWORKS, ids=lambda options: options["type"])
@pytest.mark.parametrize(("height", "strip"), [(104, 8), (104, 40), (8, 64), (64, 64)])
@torch.inference_mode()
def test_networks_give_the_result_of_the_whole_image(options, height, strip):
    torch.manual_seed(height)
    net = build_network(options).eval()
    assert net.supports_strips
    side = height - 3 if net.size_multiple == 1 else height
    x = torch.rand(2, net.in_channels, side, 24)
    budget = Fixed(strip)
    result = run_in_strips(net, x, budget)
    torch.testing.assert_close(result.whole(), net(x), rtol=0, atol=2e-6)
    del result
    assert budget.held == 0


@torch.inference_mode()
def test_every_stage_is_returned():
    net = build_network(NETWORKS[0]).eval()
    x = torch.rand(1, 3, 24, 16)
    stages = run_in_strips(net, x, Fixed(8), all_stages=True)
    for strip_map, expected in zip(stages, net(x, all_stages=True), strict=True):
        torch.testing.assert_close(strip_map.whole(), expected, rtol=0, atol=2e-6)


@torch.inference_mode()
def test_strips_within_a_memory_budget():
    torch.manual_seed(0)
    net = build_network(NETWORKS[0]).eval()
    x = torch.rand(1, 3, 64, 16)
    result = forward_in_strips(net, x, 2**20)
    torch.testing.assert_close(result, net(x), rtol=0, atol=2e-6)
    with pytest.raises(OptionsError, match=r"memory: at least 0\.01 GiB are missing"):
        forward_in_strips(net, x, 2**16)


@pytest.mark.parametrize("features", ["memory", "bf16", "disk"])
@pytest.mark.parametrize("options", NETWORKS[::3], ids=lambda x: x["type"])
@torch.inference_mode()
def test_missing_memory_is_named_before_anything_is_computed(options, features):
    """And what is named is enough."""
    net = build_network(options).eval()
    x = torch.rand(1, net.in_channels, 64, 1024)
    strips: list[int] = []
    memory = 2**20

    def restore() -> Tensor:
        with progress_to(lambda count, _: strips.append(count)):
            return forward_in_strips(net, x, memory, features)

    with pytest.raises(OptionsError) as raised:
        restore()
    assert not strips
    missing = float(re.search(r"at least (\S+) GiB are missing", str(raised.value))[1])
    assert missing > 0.02  # the message adds 0.01, and rounds to 0.01
    memory += int((missing - 0.02) * 2**30)
    with pytest.raises(OptionsError):
        restore()
    assert not strips
    memory += int(0.02 * 2**30)
    assert restore().shape == (1, 3, 64, 1024)
    assert strips


def least_memory(net: nn.Module, x: Tensor, features: Any) -> float:
    """Return the bytes that are asked for before anything is computed."""
    needs: list[float] = []

    def require(self: MemoryBudget, least: float) -> None:
        if self.memory == 2**40:
            needs.append(least)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryBudget, "require", require)
        forward_in_strips(net, x, 2**40, features)
    return needs[0]


@pytest.mark.parametrize("features", ["memory", "disk"])
@pytest.mark.parametrize("options", NETWORKS[::3], ids=lambda x: x["type"])
@torch.inference_mode()
def test_every_budget_above_the_least_is_enough(options, features):
    """With features on disk, a larger budget holds more maps, and leaves less for its strips."""
    net = build_network(options).eval()
    x = torch.rand(1, net.in_channels, 88, 160)
    least = least_memory(net, x, features)
    with pytest.raises(OptionsError):
        forward_in_strips(net, x, least - 1, features)
    for more in (1, 1.3, 1.6, 2, 2.5, 4):
        forward_in_strips(net, x, more * least + 1, features)


@torch.inference_mode()
def test_low_images_need_memory_for_their_own_rows_only():
    net = build_network(NETWORKS[5]).eval()
    low, high = (torch.rand(1, 3, height, 64) for height in (8, 64))
    assert least_memory(net, low, "disk") < least_memory(net, high, "disk") / 4


@pytest.mark.parametrize(("features", "tolerance"), [("disk", 2e-6), ("bf16", 2e-2)])
@torch.inference_mode()
def test_features_on_disk_are_exact_and_rounded_ones_are_close(features, tolerance):
    torch.manual_seed(0)
    net = build_network(NETWORKS[0]).eval()
    x = torch.rand(1, 3, 40, 32)
    result = run_in_strips(net, x, Fixed(16, features)).whole()
    torch.testing.assert_close(result, net(x), rtol=0, atol=tolerance)
    assert torch.equal(result, net(x)) is False or features == "disk"


def test_maps_that_half_of_the_memory_does_not_hold_are_on_disk():
    x = torch.rand(1, 16, 8, 8)
    budget = MemoryBudget(4.5 * x.nbytes, "disk")
    maps = [StripMap.from_tensor(x, budget) for _ in range(4)]
    assert budget.held == 2 * x.nbytes
    assert all(torch.equal(each.whole(), x) for each in maps)
    del maps[0]
    maps.append(StripMap.from_tensor(x, budget))
    assert budget.held == 2 * x.nbytes


@pytest.mark.skipif(not os.access("/var/tmp", os.W_OK), reason="needs /var/tmp")
def test_temporary_files_are_not_in_memory(monkeypatch, tmp_path):
    monkeypatch.delenv("TMPDIR", raising=False)
    assert strip_storage._temporary_folder() == "/var/tmp"
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert strip_storage._temporary_folder() == str(tmp_path)


def test_a_full_disk_is_one_line(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OptionsError, match=r"0\.25 GiB of features more: No space left"):
        RowStorage((1, 16, 1024, 4096), torch.zeros(1), MemoryBudget(0, "disk"))


@torch.inference_mode()
def test_bf16_keeps_images_exact_and_halves_features():
    image, features = torch.rand(1, 3, 8, 8), torch.rand(1, 16, 8, 8)
    budget = MemoryBudget(1e9, "bf16")
    assert torch.equal(StripMap.from_tensor(image, budget).whole(), image)
    stored = StripMap.from_tensor(features, budget)
    assert torch.equal(stored.whole(), features.bfloat16().float())
    assert budget.held == features.nbytes // 2
    del stored
    assert budget.held == 0


@pytest.mark.parametrize("type", ARCH_REGISTRY.names())
def test_networks_state_whether_they_support_strips(type):
    with torch.device("meta"):
        net = build_network({"type": type})
    assert net.supports_strips == type.startswith(("DTPNet", "Restormer", "PReNet", "PRN"))


def test_parts_that_look_at_the_whole_image_do_not_support_strips():
    net = build_network({"type": "DTPNet", **TINY, "feed_forward": "attention_gated"})
    assert not net.supports_strips


def test_strips_have_the_rows_around_them():
    seen = []

    @row_local(halo=2)
    def blurred(x: Tensor) -> Tensor:
        seen.append(x.shape[2])
        return nn.functional.avg_pool2d(x, 5, 1, 2, count_include_pad=False)

    x = torch.rand(1, 3, 30, 4)
    torch.testing.assert_close(blurred(StripMap.from_tensor(x, Fixed(16))).whole(), blurred(x))
    assert seen == [8 + 2, 16 + 4, 6 + 2, 30]


@pytest.mark.parametrize("halo", [0, 2, 13])
def test_a_map_is_overwritten_at_its_last_use(halo):
    """But not before all strips that need it have read it, even with a large halo."""

    @row_local(halo=halo)
    def blurred(x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 2 * halo + 1, 1, halo, count_include_pad=False)

    x, budget = torch.rand(1, 3, 61, 4), Fixed(8)
    first = StripMap.from_tensor(x, budget, Run({1: 2}))  # the second operation is the last use
    storage = first.storage
    other, held = blurred(first), budget.held
    assert other.storage is not storage
    overwriting = blurred(first)
    assert overwriting.storage is storage
    assert budget.held == held == 2 * x.nbytes
    for strip_map in (other, overwriting):
        torch.testing.assert_close(strip_map.whole(), blurred(x))
    with pytest.raises(RuntimeError, match="read after its last use"):
        first.whole()


def test_a_map_that_cannot_be_overwritten_is_freed_at_its_last_use():
    @row_local(halo=0)
    def first_channel(x: Tensor) -> Tensor:
        return x[:, :1]

    x, budget = torch.rand(1, 4, 16, 4), Fixed(8)
    unused = StripMap.from_tensor(x, budget, Run({1: 1}))
    result = first_channel(unused)
    assert budget.held == x.nbytes // 4
    assert torch.equal(result.whole(), x[:, :1])


@torch.inference_mode()
@pytest.mark.parametrize("images", [1, 2])
def test_rows_have_the_strides_of_a_tensor_with_channels_last(images):
    x = torch.rand(images, 3, 8, 5)
    rows = StripMap.from_tensor(x, Fixed(8)).read(2, 6)
    torch.testing.assert_close(rows, x[:, :, 2:6])
    expected = torch.empty(images, 3, 4, 5, memory_format=torch.channels_last)
    assert rows.stride() == expected.stride()


def test_a_network_holds_few_maps():
    """At most the image, the finest features, and inputs and outputs of DTPNet's coarser levels."""
    most = []

    class Watched(Fixed):
        def hold(self, size: int) -> None:
            super().hold(size)
            most.append(self.held)

    x = torch.rand(1, 3, 64, 64)
    net = build_network({"type": "DTPNet", "dim": 32, "num_blocks": (2, 2, 2, 2)}).eval()
    run_in_strips(net, x, Watched(8))
    finest = 32 * 64 * 64 * 4
    assert max(most) == x.nbytes + finest * (1 + 2 * (1 / 2 + 1 / 4 + 1 / 8))


def test_strips_are_as_high_as_memory_allows_and_is_fast():
    x = torch.rand(1, 4, 200, 16)  # 256 bytes a row

    def heights(rows: int) -> list[int]:
        """Return the strips' heights, with memory for computing `rows` rows beside the map."""
        stored = StripMap.from_tensor(x, MemoryBudget(x.nbytes + 256 * 10 * rows))
        return [y.shape[2] for y in strip_sums(lambda x, rows: x[:, :, rows] + 1, stored, halo=1)]

    assert heights(18) == [8] + 12 * [16]
    assert heights(1000) == [8] + 3 * [56] + [24]
    with pytest.raises(OptionsError, match=r"memory: at least 0\.01 GiB are missing"):
        heights(4)
