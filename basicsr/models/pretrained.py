"""Load networks with weights: from options and a weights file, or from a file that holds both."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from basicsr.archs import (
    RestorationNetwork,
    build_network,
    from_released,
    released_hints,
    strict_load,
)
from basicsr.archs.released import looks_like, published_part, system_of
from basicsr.io.checkpoints import HUB_WEIGHTS, Weights, load_weights
from basicsr.io.state_dicts import listed
from basicsr.utils.components import Component, OneOf
from basicsr.utils.errors import CheckpointError, OptionsError, remedy
from basicsr.utils.option_errors import error_lines
from basicsr.utils.registry import ARCH_REGISTRY, options_of, suggest

# at the top of a checkout; beside the modules in an installed package
_FOLDERS = tuple(Path(__file__).parents[level] / "pretrained_models" for level in (2, 1))
RUNS = Path("experiments")

logger = logging.getLogger(__name__)


def network_with_weights(
    options: Mapping[str, Any], file: str | Path, strict: bool = True
) -> RestorationNetwork:
    """Build the network of `network_g` options and load the weights in `file`.

    A `.safetensors` file with this project's metadata has this project's layout; any other file is
    read in the layout that the authors of the network published. Options without influence on the
    shapes of the weights may differ from the saved ones; a warning lists them.

    Args:
        options: options of the network, with its `type`.
        file: the weights.
        strict: all weights of the file and of the network must agree. Otherwise the weights of
            equal name and shape are loaded, and a warning lists the others.

    Raises:
        CheckpointError: The file cannot be read, or holds weights of another network.
    """
    network = build_network(options)
    weights = load_weights(file)
    try:
        if strict:
            _load(network, options, weights)
        else:
            _load_fitting(network, weights, file)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    if strict and weights.network is not None:
        differences = _differences(network, weights.network)
        if differences:
            logger.warning(
                "%s: network_g differs from the saved options: %s", file, ", ".join(differences)
            )
    return network


def saved_network(file: str | Path, type: str | None = None) -> tuple[RestorationNetwork, Weights]:
    """Load the network that a file of weights holds, and the file's content.

    Args:
        file: a `.safetensors` file of this project, which has the options of its network, or
            weights as the authors of a network published them.
        type: registered name of the network; only published weights need it.

    Raises:
        CheckpointError: The file does not say which network it holds, or does not fit `type`.
    """
    weights = load_weights(file)
    try:
        if weights.network is None:
            return _released_network(weights.state_dict, type), weights
        if type is not None and type != weights.network["type"]:
            raise CheckpointError(f"weights of {weights.network['type']}, not of {type}")
        network = _network_of(weights.network)
        strict_load(network, weights.state_dict)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    return network, weights


def shipped_weights() -> dict[str, Path]:
    """Return the files of the shipped weights by their names."""
    return {file.stem: file for folder in _FOLDERS for file in sorted(folder.glob("*.safetensors"))}


def weights_file(name: str | Path) -> Path:
    """Return the file of weights that `name` means.

    Args:
        name: a file; the name of shipped weights; the folder or the name of a run in
            `experiments`, whose latest weights are meant; hf:OWNER/NAME on the Hugging Face hub, or
            a folder with a copy of such a repository.

    Raises:
        CheckpointError: It is none of these; the message lists what there is.
    """
    if str(name).startswith("hf:"):
        from basicsr.io.hub_files import hub_file  # it needs a package that few users install

        return hub_file(str(name))
    path = Path(name)
    shipped = shipped_weights()
    if path.is_file():
        return path
    if str(name) in shipped:
        return shipped[str(name)]
    for run in (path, RUNS / path):
        if run.is_dir():
            return _weights_in(run)
    runs = [file.parents[1].name for file in RUNS.glob("*/models/*latest.safetensors")]
    raise CheckpointError(
        f"weights '{name}': no such file, run or shipped weights"
        f"{suggest(str(name), [*shipped, *runs])}; "
        f"shipped are {', '.join(sorted(shipped)) or 'none'}; "
        f"runs in {RUNS} are {', '.join(sorted(runs)) or 'none'}"
    )


def _weights_in(folder: Path) -> Path:
    """Return the latest weights of a run, or those of a copy of a repository of the hub."""
    names = ("models/net_g_latest.safetensors", HUB_WEIGHTS)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"{folder}: a folder without {' or '.join(names)}, so neither a run with a checkpoint nor "
        "a copy of a repository of the hub; name a file of weights"
    )


def _network_of(options: Mapping[str, Any]) -> RestorationNetwork:
    """Build the network of saved options, checked as those of an option file are."""
    choices: Any = Annotated[Component, OneOf.registered(ARCH_REGISTRY)]
    try:
        component = TypeAdapter(choices).validate_json(json.dumps(options))
        return build_network(component.arguments())
    except ValidationError as error:
        fault = error_lines(Component, options, error)[0]
    except OptionsError as error:
        fault = str(error)
    raise CheckpointError(f"its options build no network ({fault})")


def _released_network(state_dict: Mapping[str, Tensor], type: str | None) -> RestorationNetwork:
    """Build the network `type` from published weights, with its sizes read off them."""
    if type is not None:
        return from_released(type, state_dict)
    state_dict = published_part(state_dict)
    system = system_of(state_dict)
    example = system if system and system in ARCH_REGISTRY else "NAME"
    what_to_do = remedy(
        f"name it with --type {example} (in a test file, with network_g), or convert the file "
        "first with scripts/convert_weights.py",
        page="choose weights that this project has trained or converted",
    )
    raise CheckpointError(
        f"does not say which network it holds{looks_like(state_dict)}; {what_to_do}"
    )


def _load(network: RestorationNetwork, options: Mapping[str, Any], weights: Weights) -> None:
    name, state_dict = str(options["type"]), weights.state_dict
    if weights.network is None and not _has_own_layout(network, state_dict):
        hints = {key: options[key] for key in released_hints(name) & options.keys()}
        state_dict = from_released(name, state_dict, **hints).state_dict()
    elif weights.network is not None and weights.network["type"] != name:
        raise CheckpointError(f"weights of {weights.network['type']}, but network_g.type is {name}")
    strict_load(network, state_dict)


def _has_own_layout(network: RestorationNetwork, state_dict: Mapping[str, Tensor]) -> bool:
    """Return whether torch.save(network.state_dict()) wrote the weights, and not their authors."""
    own = network.state_dict().keys()
    return own == state_dict.keys() and any(network.published_keys(key) != [key] for key in own)


def _load_fitting(network: RestorationNetwork, weights: Weights, file: str | Path) -> None:
    """Load the weights whose names and shapes fit, and list the others."""
    own, found = network.state_dict(), weights.state_dict
    has_own_names = weights.network is not None or _has_own_layout(network, found)
    if not has_own_names:
        found = published_part(found)
    fitting: dict[str, Tensor] = {}
    unused = dict.fromkeys(found)
    for key, value in own.items():
        names = (key,) if has_own_names else network.published_keys(key)
        candidate = _joined([found[name] for name in names if name in found], len(names))
        if candidate is not None and _alike(candidate, value):
            fitting[key] = candidate
            for name in names:
                unused.pop(name, None)
    if not fitting:
        raise CheckpointError(
            f"none of its weights fits {type(network).__name__}{looks_like(found)}"
        )
    network.load_state_dict(fitting, strict=False)
    new = [key for key in own if key not in fitting]
    logger.warning(
        "%s: strict_load_g is false: %d of the %d weights of %s loaded; not in the file or of "
        "another shape, and so with new random values: %s; not used from the file: %s",
        *(file, len(fitting), len(own), type(network).__name__),
        *(listed(new, 20) or "none", listed(list(unused), 20) or "none"),
    )


def _joined(parts: list[Tensor], count: int) -> Tensor | None:
    """Return the concatenation of `count` parts along the first axis, or None if it is not one."""
    if len(parts) < count:
        return None
    alike = all(part.ndim and part.shape[1:] == parts[0].shape[1:] for part in parts)
    return parts[0] if count == 1 else torch.cat(parts) if alike else None


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.is_floating_point() == b.is_floating_point()


def _differences(network: RestorationNetwork, saved: Mapping[str, Any]) -> list[str]:
    """Return "NAME is X, was Y" for each option of `network` that differs from the saved ones."""
    own = json.loads(json.dumps(options_of(network)))  # tuples become lists, as in the file
    return [
        f"{key} is {own[key]}, was {value}"
        for key, value in saved.items()
        if key != "type" and own.get(key, value) != value
    ]
