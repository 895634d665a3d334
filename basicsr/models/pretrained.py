"""A network from its options, with or without weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from basicsr.archs import build_network, from_released, strict_load
from basicsr.utils.checkpoints import load_weights
from basicsr.utils.errors import CheckpointError


def network_with_weights(options: Mapping[str, Any], file: str | Path) -> nn.Module:
    """The network of `network_g` options with the weights in `file`.

    `.safetensors` files are ours; anything else is read as the layout that the system's authors
    published. Raises CheckpointError where the file is unreadable or belongs to another network.
    """
    network = build_network(options)
    state_dict, saved_with = load_weights(file)
    try:
        if saved_with is not None and saved_with["type"] != options["type"]:
            raise CheckpointError(
                f"weights of {saved_with['type']}, but network_g.type is {options['type']}"
            )
        if Path(file).suffix != ".safetensors":
            state_dict = from_released(str(options["type"]), state_dict).state_dict()
        strict_load(network, state_dict)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    return network
