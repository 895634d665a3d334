"""Networks. Every `*_arch.py` of this folder registers its classes; option files name them.

A network maps a batch (N x C x H x W, values in [0, 1], H and W multiples of its `size_multiple`)
to the restored batch, or, with `all_stages=True`, to the list of its supervised outputs, the
restored one last.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from basicsr.archs.released import misfits, strict_load
from basicsr.archs.sizes import fitting_side
from basicsr.utils.errors import CheckpointError
from basicsr.utils.registry import ARCH_REGISTRY

__all__ = ["build_network", "fitting_side", "from_released", "released_hints", "strict_load"]

for _module in pkgutil.iter_modules(__path__):
    if _module.name.endswith("_arch"):
        importlib.import_module(f"{__name__}.{_module.name}")


def build_network(options: Mapping[str, Any]) -> nn.Module:
    """The network that `options["type"]` names; the other keys are its constructor's arguments."""
    net: nn.Module = ARCH_REGISTRY.build(options)
    return net


def from_released(type: str, state_dict: Mapping[str, Tensor], **hints: Any) -> nn.Module:
    """The network `type` with weights in the layout that its authors published.

    Sizes are read off the shapes; `hints` are the constructor's arguments that shapes cannot tell
    (`recurrent_iter`). A `module.` in front of every key, DataParallel's mark, is dropped.

    Raises CheckpointError where a key is missing or left over, where a shape does not fit, or where
    the weights belong to another network or to another size or variant than `type`.
    """
    cls, preset = ARCH_REGISTRY.entry(type)
    accepted = released_hints(type)
    if unknown := sorted(set(hints) - accepted):
        raise CheckpointError(
            f"{type}: '{unknown[0]}' is no hint for reading published weights; "
            f"hints are {', '.join(sorted(accepted)) or 'not needed'}"
        )
    if all(key.startswith("module.") for key in state_dict):
        state_dict = {key.removeprefix("module."): value for key, value in state_dict.items()}
    known = {name: value for name, value in preset.items() if name in accepted}
    net = _reader(type)(state_dict, **{**known, **hints})
    if preset:
        with torch.device("meta"):
            named = cls(**{**preset, **hints})
        if misfit := misfits(named, net.state_dict()):
            raise CheckpointError(f"these weights are a {cls.__name__}, but no {type}: {misfit}")
    return net


def released_hints(type: str) -> set[str]:
    """The hints that `from_released` takes for the network `type`.

    Raises CheckpointError where its authors published no weights.
    """
    return set(inspect.signature(_reader(type)).parameters) - {"state_dict"}


def _reader(type: str) -> Callable[..., nn.Module]:
    read: Callable[..., nn.Module] | None
    read = getattr(ARCH_REGISTRY.entry(type).cls, "from_released", None)
    if read is None:
        raise CheckpointError(f"{type}: there are no published weights to read")
    return read
