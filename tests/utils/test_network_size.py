"""Networks that are too large are refused before memory is allocated for them."""

from __future__ import annotations

import pytest
import torch

from basicsr.archs import build_network
from basicsr.utils.errors import OptionsError


@pytest.mark.parametrize(
    "options",
    [
        {"type": "DTPNet", "dim": 4096},
        {"type": "Restormer", "dim": 4096, "ffn_expansion_factor": 64},
        {"type": "PReNet", "channels": 4096},
        {"type": "MPRNet", "n_feat": 4096, "num_cab": 1000},
        {"type": "SPAIR", "dim": 4096},
        {"type": "Restormer", "dim": 8, "num_blocks": [1000] * 4, "heads": [1] * 4},
    ],
)
def test_networks_are_bounded(options):
    with pytest.raises(OptionsError, match=r"^the network is too large: more than 1,000,000,000"):
        build_network(options)


def test_initial_values_do_not_depend_on_the_bound(monkeypatch):
    torch.manual_seed(3)
    bounded = build_network({"type": "SPAIR", "dim": 16, "num_blocks": [1, 1, 1]}).state_dict()
    monkeypatch.setattr("basicsr.utils.network_size.require_bounded", lambda construct: None)
    torch.manual_seed(3)
    free = build_network({"type": "SPAIR", "dim": 16, "num_blocks": [1, 1, 1]}).state_dict()
    assert all(torch.equal(bounded[key], free[key]) for key in free)
