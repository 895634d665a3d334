"""What is computed by strips is what is computed at once."""

from __future__ import annotations

import errno
import os
import tempfile
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from basicsr.archs import build_network
from basicsr.archs import rows as rows_module
from basicsr.archs.rows import Plan, Rows, row_local, spent, strips
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
]


class Fixed(Plan):
    """Strips of one height, whatever they take."""

    def __init__(self, height: int, keep: Any = "memory") -> None:
        super().__init__(0 if keep == "disk" else float("inf"), keep)
        self.height = height

    def strip_height(self, row_bytes: float, halo: int) -> int:
        return self.height


@pytest.mark.parametrize("options", NETWORKS, ids=lambda options: options["type"])
@pytest.mark.parametrize(("height", "strip"), [(104, 8), (104, 40), (8, 64), (64, 64)])
@torch.inference_mode()
def test_networks_give_the_result_of_the_whole_image(options, height, strip):
    torch.manual_seed(height)
    net = build_network(options).eval()
    assert net.takes_rows
    side = height - 3 if net.size_multiple == 1 else height
    x = torch.rand(2, 3, side, 24)
    plan = Fixed(strip)
    result = net(Rows.of(x, plan))
    torch.testing.assert_close(result.whole(), net(x), rtol=0, atol=2e-6)
    del result
    assert plan.held == 0


@torch.inference_mode()
def test_every_stage_is_there():
    net = build_network(NETWORKS[0]).eval()
    x = torch.rand(1, 3, 24, 16)
    for rows, expected in zip(
        net(Rows.of(x, Fixed(8)), all_stages=True), net(x, all_stages=True), strict=True
    ):
        torch.testing.assert_close(rows.whole(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("keep", "tolerance"), [("disk", 2e-6), ("bf16", 2e-2)])
@torch.inference_mode()
def test_features_on_disk_are_exact_and_rounded_ones_are_close(keep, tolerance):
    torch.manual_seed(0)
    net = build_network(NETWORKS[0]).eval()
    x = torch.rand(1, 3, 40, 32)
    plan = Fixed(16, keep)
    result = net(Rows.of(x, plan)).whole()
    torch.testing.assert_close(result, net(x), rtol=0, atol=tolerance)
    assert torch.equal(result, net(x)) is False or keep == "disk"


def test_what_is_on_disk_is_what_half_of_the_memory_does_not_hold():
    x = torch.rand(1, 16, 8, 8)
    plan = Plan(4.5 * x.nbytes, "disk")
    maps = [Rows.of(x, plan) for _ in range(4)]
    assert plan.held == 2 * x.nbytes
    assert all(torch.equal(each.whole(), x) for each in maps)
    del maps[0]
    maps.append(Rows.of(x, plan))
    assert plan.held == 2 * x.nbytes


@pytest.mark.skipif(not os.access("/var/tmp", os.W_OK), reason="needs /var/tmp")
def test_temporary_files_are_not_in_memory(monkeypatch, tmp_path):
    monkeypatch.delenv("TMPDIR", raising=False)
    assert rows_module._folder_of_files() == "/var/tmp"
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert rows_module._folder_of_files() == str(tmp_path)


def test_a_full_disk_is_one_line(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OptionsError, match=r"0\.25 GiB of features more: No space left"):
        Rows((1, 16, 1024, 4096), torch.zeros(1), Plan(0, "disk"))


@torch.inference_mode()
def test_bf16_keeps_images_exact_and_halves_features():
    image, features = torch.rand(1, 3, 8, 8), torch.rand(1, 16, 8, 8)
    plan = Plan(1e9, "bf16")
    assert torch.equal(Rows.of(image, plan).whole(), image)
    kept = Rows.of(features, plan)
    assert torch.equal(kept.whole(), features.bfloat16().float())
    assert plan.held == features.nbytes // 2
    del kept
    assert plan.held == 0


@pytest.mark.parametrize("type", ARCH_REGISTRY.names())
def test_networks_say_whether_they_take_rows(type):
    with torch.device("meta"):
        net = build_network({"type": type})
    assert getattr(net, "takes_rows", False) == (
        type.startswith(("DTPNet", "Restormer", "PReNet", "PRN"))
    )


def test_parts_that_look_at_the_whole_image_do_not_take_rows():
    net = build_network({"type": "DTPNet", **TINY, "feed_forward": "attention_gated"})
    assert not net.takes_rows


def test_strips_have_the_rows_around_them():
    seen = []

    @row_local(halo=2)
    def blurred(x: Tensor) -> Tensor:
        seen.append(x.shape[2])
        return nn.functional.avg_pool2d(x, 5, 1, 2, count_include_pad=False)

    x = torch.rand(1, 3, 30, 4)
    torch.testing.assert_close(blurred(Rows.of(x, Fixed(16))).whole(), blurred(x))
    assert seen == [8 + 2, 16 + 4, 6 + 2, 30]


@pytest.mark.parametrize("halo", [0, 2, 13])
def test_what_is_spent_is_written_over(halo):
    """But not before all strips that need it have read it, also where they reach far."""

    @row_local(halo=halo)
    def blurred(x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 2 * halo + 1, 1, halo, count_include_pad=False)

    x, plan = torch.rand(1, 3, 61, 4), Fixed(8)
    kept = Rows.of(x, plan)
    other, held = blurred(kept), plan.held
    assert other is not kept
    assert blurred(spent(kept)) is kept
    assert plan.held == held == 2 * x.nbytes
    assert not kept.is_spent
    for rows in (kept, other):
        torch.testing.assert_close(rows.whole(), blurred(x))


@torch.inference_mode()
def test_a_network_holds_few_maps():
    """At most DTPNet's image, and what left each scale's and entered the coarser ones' blocks."""
    most = []

    class Watched(Fixed):
        def hold(self, size: int) -> None:
            super().hold(size)
            most.append(self.held)

    x = torch.rand(1, 3, 64, 64)
    net = build_network({"type": "DTPNet", "dim": 32, "num_blocks": (2, 2, 2, 2)}).eval()
    net(Rows.of(x, Watched(8)))
    finest = 32 * 64 * 64 * 4
    assert max(most) == x.nbytes + finest * (1 + 2 * (1 / 2 + 1 / 4 + 1 / 8))


def test_strips_are_as_high_as_memory_allows_and_is_quick():
    x = torch.rand(1, 4, 200, 16)  # 256 bytes a row

    def heights(rows: int) -> list[int]:
        """With memory for so many rows, of what is read and written, beside the map."""
        kept = Rows.of(x, Plan(x.nbytes + 2 * 256 * 10 * rows))
        return [y.shape[2] for _, y in strips(lambda x: x + 1, kept, halo=1)]

    assert heights(18) == [8] + 12 * [16]
    assert heights(1000) == [8] + 8 * [24]
    with pytest.raises(OptionsError, match=r"memory: at least 0\.01 GiB are missing"):
        heights(4)
