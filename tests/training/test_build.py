import pytest
import torch

from basicsr.training.build import optimizer_factory

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
