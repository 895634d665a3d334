"""Networks in the layout of their authors: keys, shapes and values of the published code."""

from __future__ import annotations

import pytest
import torch
from golden import load_case

from basicsr.archs import from_released

CASES = {
    "dtpnet_dim16_iter2": "DTPNet",
    "mprnet_deraining": "MPRNet",
    "prenet_PReNet": "PReNet",
    "prenet_PReNet_GRU": "PReNet_GRU",
    "prenet_PReNet_x": "PReNet_x",
    "prenet_PReNet_r": "PReNet_r",
    "prenet_PRN": "PRN",
    "prenet_PRN_r": "PRN_r",
    "restormer_withbias": "Restormer",
    "restormer_biasfree_gray": "Restormer",
    "restormer_dual_pixel": "Restormer",
    "didmdn_eval": "DIDMDNDerainer",
    "didmdn_residual_eval": "DIDMDNResidual",
}


@pytest.mark.parametrize("case", CASES)
def test_the_published_layout_is_written(case):
    published = load_case(case).state_dict
    network = from_released(CASES[case], published)
    written = network.published_state_dict()
    assert written.keys() == published.keys()
    for key, value in written.items():
        assert value.shape == published[key].shape, key
        assert value.dtype == published[key].dtype, key
        # DID-MDN has weights without influence; MPRNet has one PReLU under many names
        if not case.startswith("didmdn") and value.shape != (1,):
            assert torch.equal(value, published[key]), key
    again = from_released(CASES[case], written)
    for key, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
