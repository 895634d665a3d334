"""Progress of a network that is computed in strips."""

from __future__ import annotations

import itertools

import pytest
import torch

from basicsr.archs import build_network
from basicsr.archs.strip_progress import progress_to
from basicsr.archs.strips import forward_in_strips

TINY = {"dim": 8, "num_blocks": (2, 1, 1, 1), "num_refinement_blocks": 1}


@pytest.mark.parametrize(
    "options",
    [
        {"type": "DTPNet", **TINY, "recurrent_channels": 6},
        {"type": "Restormer", **TINY},
        {"type": "PReNet", "channels": 6},
    ],
)
@torch.inference_mode()
def test_the_part_done_rises_from_zero_to_one(options):
    network = build_network(options).eval()
    x = torch.rand(1, 3, 320, 16)
    seen: list[tuple[int, float]] = []
    with progress_to(lambda strips, part: seen.append((strips, part))):
        forward_in_strips(network, x, 1e9)
    counts, parts = zip(*seen, strict=True)
    assert list(counts) == list(range(1, len(seen) + 1))
    assert len(seen) > 20
    assert list(parts) == sorted(parts)
    assert 0 < parts[0] < 0.2
    assert parts[-1] == pytest.approx(1)
    # no jumps: a strip is a small part of the work
    assert max(after - before for before, after in itertools.pairwise(parts)) < 0.2
    forward_in_strips(network, x, 1e9)
    assert len(seen) == counts[-1]
