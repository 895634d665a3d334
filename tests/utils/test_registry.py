"""Registered names, and what a network was made of."""

import copy
import pickle

import pytest
import torch
from torch import nn

from basicsr.archs import build_network, strict_load
from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import ARCH_REGISTRY, NetworkRegistry, Registry, options_of


class Part:
    def __init__(self, size: int, name: str = "plain") -> None:
        self.size, self.name = size, name


@pytest.fixture
def parts() -> Registry:
    registry = Registry("part")
    registry.register(Part)
    registry.variant("LargePart", Part, size=9)
    return registry


def test_builds_by_name_with_a_variants_own_defaults(parts):
    part = parts.build({"type": "LargePart", "name": "blue"})
    assert (part.size, part.name) == (9, "blue")
    assert parts.build({"type": "LargePart", "size": 3}).size == 3
    defaults = {name: each.default for name, each in parts.entry("LargePart").parameters().items()}
    assert defaults == {"size": 9, "name": "plain"}


def test_unknown_names_are_told_with_the_nearest(parts):
    with pytest.raises(OptionsError, match=r"no part is called 'largepart' \(did you mean 'LargeP"):
        parts.entry("largepart")


def test_names_are_taken_once_and_presets_are_arguments(parts):
    with pytest.raises(ValueError, match="a part called Part already"):
        parts.register(Part)
    with pytest.raises(TypeError, match="Part takes no argument"):
        parts.variant("Other", Part, colour="red")


def test_a_network_remembers_all_its_arguments():
    net = build_network({"type": "PReNet_GRU", "channels": 8})
    assert options_of(net) == {
        "type": "PReNet",
        "recurrent_iter": 6,
        "channels": 8,
        "recurrent_unit": "gru",
        "shared_block": False,
        "image_input": True,
        "image_residual": False,
    }
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert options_of(copied) == options_of(net)


def test_a_class_made_of_another_remembers_its_own_arguments():
    registry = NetworkRegistry("network")

    @registry.register
    class Wide(nn.Module):
        def __init__(self, width: int = 1) -> None:
            super().__init__()
            self.conv = nn.Conv2d(width, width, 1)

    @registry.register
    class Wider(Wide):
        def __init__(self, factor: int = 2) -> None:
            super().__init__(3 * factor)

    @registry.register
    class Same(Wide):
        pass

    assert options_of(Wider(5)) == {"type": "Wider", "factor": 5}
    assert options_of(Same(width=4)) == {"type": "Same", "width": 4}
    assert list(registry.entry("Wider").parameters()) == ["factor"]


@pytest.mark.parametrize("name", ARCH_REGISTRY.names())
def test_every_network_is_rebuilt_from_its_options(name):
    with torch.device("meta"):
        net = build_network({"type": name})
        again = build_network(options_of(net))
    strict_load(again, net.state_dict())
    assert options_of(again) == options_of(net)
