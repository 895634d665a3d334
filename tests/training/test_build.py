import pytest
import torch

from basicsr.models.optimizers import MuonAdamW
from basicsr.training.build import optimizer_factory
from basicsr.utils.errors import OptionsError

SGD = {"type": "SGD", "lr": 1.0, "fused": None, "foreach": None}


@pytest.mark.parametrize(
    ("arguments", "fused"),
    [
        (SGD, True),
        (SGD | {"fused": False}, False),
        (SGD | {"foreach": True}, None),
        (SGD | {"differentiable": True}, None),
    ],
)
def test_an_optimizer_is_the_fused_one_by_default(arguments, fused):
    built = optimizer_factory(dict(arguments))([torch.nn.Parameter(torch.ones(2))])
    assert built.defaults["fused"] is fused


def test_an_optimizer_without_a_fused_version_is_not_fused():
    built = optimizer_factory({"type": "RMSprop", "lr": 1.0})([torch.nn.Parameter(torch.ones(2))])
    assert isinstance(built, torch.optim.RMSprop)


def test_muon_is_built_from_options():
    options = {"type": "MuonAdamW", "lr": 1e-3, "fused": None}
    built = optimizer_factory(options)([torch.nn.Parameter(torch.ones(8, 8))])
    assert isinstance(built, MuonAdamW)
    assert built.defaults["fused"] is True


def test_an_error_of_the_optimizer_names_its_options():
    with pytest.raises(OptionsError, match=r"^train\.optim_g: SGD: Invalid learning rate: -1"):
        optimizer_factory(SGD | {"lr": -1.0})([torch.nn.Parameter(torch.ones(2))])
