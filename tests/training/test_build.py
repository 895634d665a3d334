import pytest
import torch

from basicsr.training.build import optimizer

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
def test_an_optimizer_is_the_fused_one_unless_told_otherwise(arguments, fused):
    built = optimizer(dict(arguments))([torch.nn.Parameter(torch.ones(2))])
    assert built.defaults["fused"] is fused


def test_an_optimizer_without_a_fused_kind_is_built_as_it_is():
    built = optimizer({"type": "RMSprop", "lr": 1.0})([torch.nn.Parameter(torch.ones(2))])
    assert isinstance(built, torch.optim.RMSprop)
