"""Networks. Every `*_arch.py` of this folder registers its classes for use in option files.

All derive from `RestorationNetwork`, which documents what they have in common.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from basicsr.archs.base import RestorationNetwork
from basicsr.archs.released import misfits, published_part, strict_load
from basicsr.io.state_dicts import without_prefixes
from basicsr.utils.errors import CheckpointError, OptionsError
from basicsr.utils.registry import ARCH_REGISTRY, import_modules

__all__ = [
    "RestorationNetwork",
    "build_network",
    "from_released",
    "released_hints",
    "strict_load",
]

import_modules(__name__, __path__, "_arch")


def build_network(options: Mapping[str, Any]) -> RestorationNetwork:
    """Build the network named by `options["type"]`; the other keys are constructor arguments.

    Raises:
        OptionsError: The name is unknown, or an argument is out of its range.
    """
    net: RestorationNetwork = ARCH_REGISTRY.build(options)
    return net


def from_released(type: str, state_dict: Mapping[str, Tensor], **hints: Any) -> RestorationNetwork:
    """Build a network from weights in the layout that its authors published.

    Prefixes such as `module.` (DataParallel) are dropped, and so are weights beside the network's.

    Args:
        type: registered name of the network.
        state_dict: the published weights; the network's sizes are read off their shapes.
        hints: constructor arguments that the weights do not reveal (`recurrent_iter`).

    Raises:
        CheckpointError: A key is missing or left over, a shape does not fit, or the weights belong
            to another network or to another size or variant than `type`.
    """
    entry = ARCH_REGISTRY.entry(type)
    cls: Any = entry.cls
    preset = entry.preset
    accepted = released_hints(type)
    if unknown := sorted(set(hints) - accepted):
        raise CheckpointError(
            f"{type}: '{unknown[0]}' is no hint for reading published weights; "
            f"hints are {', '.join(sorted(accepted)) or 'not needed'}"
        )
    state_dict = published_part(without_prefixes(state_dict))
    known = {name: value for name, value in preset.items() if name in accepted}
    try:
        net: RestorationNetwork = cls.from_released(state_dict, **{**known, **hints})
    except OptionsError as error:  # sizes out of range
        raise CheckpointError(f"{type} cannot have the sizes of these weights: {error}") from None
    if preset:
        with torch.device("meta"):
            named = cls(**{**preset, **hints})
        if misfit := misfits(named, net.state_dict()):
            raise CheckpointError(f"these weights are a {cls.__name__}, but not a {type}: {misfit}")
    return net


def released_hints(type: str) -> set[str]:
    """Return the names of the hints that `from_released` accepts for the network `type`.

    Raises:
        CheckpointError: Its authors published no weights.
    """
    cls: Any = ARCH_REGISTRY.entry(type).cls
    base: Any = RestorationNetwork
    if cls.from_released.__func__ is base.from_released.__func__:
        raise CheckpointError(f"{type}: there are no published weights to read")
    return set(inspect.signature(cls.from_released).parameters) - {"state_dict"}
