"""A network from its options, with or without weights, and from a file that holds both."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from basicsr.archs import build_network, from_released, released_hints, strict_load
from basicsr.io.checkpoints import Weights, load_weights
from basicsr.utils.errors import CheckpointError
from basicsr.utils.registry import options_of, suggest

# in a checkout at the top, in an installed package beside the code
_FOLDERS = tuple(Path(__file__).parents[level] / "pretrained_models" for level in (2, 1))

logger = logging.getLogger(__name__)


def network_with_weights(options: Mapping[str, Any], file: str | Path) -> nn.Module:
    """The network of `network_g` options with the weights in `file`.

    A `.safetensors` file with our metadata is ours; anything else is read as the layout that the
    system's authors published. Raises CheckpointError where the file is unreadable or belongs to
    another network. Options that do not show in weights and are others than the saved ones are
    allowed, and told.
    """
    network = build_network(options)
    weights = load_weights(file)
    try:
        _load(network, options, weights)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    if weights.network is not None and (changed := _changed(network, weights.network)):
        logger.warning("%s: network_g differs from the saved options: %s", file, changed)
    return network


def saved_network(file: str | Path) -> tuple[nn.Module, Weights]:
    """The network that a `.safetensors` file of ours holds, and all that is in the file.

    Raises CheckpointError where the file has no options to build a network from, or where they do
    not fit its weights.
    """
    weights = load_weights(file)
    if weights.network is None:
        raise CheckpointError(
            f"{file}: does not tell its network; convert it first with scripts/convert_weights.py"
        )
    try:
        network = build_network(weights.network)
        strict_load(network, weights.state_dict)
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: its options build no network ({error})") from None
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    return network, weights


def weights_file(name: str) -> Path:
    """The file of the shipped weights called `name`, or the file that `name` is.

    Raises CheckpointError, with the names that there are, where it is neither.
    """
    shipped = {file.stem: file for folder in _FOLDERS for file in folder.glob("*.safetensors")}
    if name in shipped:
        return shipped[name]
    if Path(name).is_file():
        return Path(name)
    raise CheckpointError(
        f"weights '{name}': neither a file nor shipped{suggest(name, shipped)}; "
        f"shipped are: {', '.join(sorted(shipped)) or 'none yet'}"
    )


def _load(network: nn.Module, options: Mapping[str, Any], weights: Weights) -> None:
    name, state_dict = str(options["type"]), weights.state_dict
    if weights.network is None:
        hints = {key: options[key] for key in released_hints(name) & options.keys()}
        state_dict = from_released(name, state_dict, **hints).state_dict()
    elif weights.network["type"] != name:
        raise CheckpointError(f"weights of {weights.network['type']}, but network_g.type is {name}")
    strict_load(network, state_dict)


def _changed(network: nn.Module, saved: Mapping[str, Any]) -> str:
    """The options of `network` that are others than those it was saved with, in words."""
    own = json.loads(json.dumps(options_of(network)))
    return ", ".join(
        f"{key} is {own[key]}, was {value}"
        for key, value in saved.items()
        if key != "type" and own.get(key, value) != value
    )
