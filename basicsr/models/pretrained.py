"""Load networks with weights: from options and a weights file, or from a file that holds both."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from basicsr.archs import (
    RestorationNetwork,
    build_network,
    from_released,
    released_hints,
    strict_load,
)
from basicsr.io.checkpoints import Weights, load_weights
from basicsr.utils.errors import CheckpointError, OptionsError
from basicsr.utils.registry import options_of, suggest

# at the top of a checkout; beside the modules in an installed package
_FOLDERS = tuple(Path(__file__).parents[level] / "pretrained_models" for level in (2, 1))

logger = logging.getLogger(__name__)


def network_with_weights(options: Mapping[str, Any], file: str | Path) -> RestorationNetwork:
    """Build the network of `network_g` options and load the weights in `file`.

    A `.safetensors` file with this project's metadata has this project's layout; any other file is
    read in the layout that the authors of the network published. Options without influence on the
    shapes of the weights may differ from the saved ones; a warning lists them.

    Raises CheckpointError if the file cannot be read or holds weights of another network.
    """
    network = build_network(options)
    weights = load_weights(file)
    try:
        _load(network, options, weights)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    if weights.network is not None:
        differences = _differences(network, weights.network)
        if differences:
            logger.warning(
                "%s: network_g differs from the saved options: %s", file, ", ".join(differences)
            )
    return network


def saved_network(file: str | Path) -> tuple[RestorationNetwork, Weights]:
    """Load the network that a `.safetensors` file of this project holds, and the file's content.

    Raises CheckpointError if the file has no network options, or if they do not fit its weights.
    """
    weights = load_weights(file)
    if weights.network is None:
        raise CheckpointError(
            f"{file}: has no options of its network; convert it first with "
            "scripts/convert_weights.py"
        )
    try:
        network = build_network(weights.network)
        strict_load(network, weights.state_dict)
    except (KeyError, TypeError, OptionsError) as error:
        raise CheckpointError(f"{file}: its options build no network ({error})") from None
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    return network, weights


def weights_file(name: str) -> Path:
    """Return the file of the shipped weights called `name`, or `name` itself if it is a file.

    Raises CheckpointError, which lists the shipped weights, if it is neither.
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


def _load(network: RestorationNetwork, options: Mapping[str, Any], weights: Weights) -> None:
    name, state_dict = str(options["type"]), weights.state_dict
    if weights.network is None:
        hints = {key: options[key] for key in released_hints(name) & options.keys()}
        state_dict = from_released(name, state_dict, **hints).state_dict()
    elif weights.network["type"] != name:
        raise CheckpointError(f"weights of {weights.network['type']}, but network_g.type is {name}")
    strict_load(network, state_dict)


def _differences(network: RestorationNetwork, saved: Mapping[str, Any]) -> list[str]:
    """Return "NAME is X, was Y" for each option of `network` that differs from the saved ones."""
    own = json.loads(json.dumps(options_of(network)))  # tuples become lists, as in the file
    return [
        f"{key} is {own[key]}, was {value}"
        for key, value in saved.items()
        if key != "type" and own.get(key, value) != value
    ]
