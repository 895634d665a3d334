"""Read and write weights (.safetensors) and training states; reading never runs code."""

from __future__ import annotations

import io
import json
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from basicsr.utils.errors import CheckpointError
from basicsr.utils.files import atomic_write

METADATA = "dtpnet-derain"
_STATE_KEYS = {"iteration", "validation_due", "identity", "network", "average", "optimizer"}


class Weights(NamedTuple):
    """Weights of a file.

    Args:
        state_dict: the tensors.
        network: `network_g` options that were saved with them; None in foreign files.
        facts: other metadata that was saved with them.
    """

    state_dict: dict[str, Tensor]
    network: dict[str, Any] | None
    facts: dict[str, Any]


def save_weights(
    path: Path, state_dict: Mapping[str, Tensor], network: Mapping[str, Any], **facts: Any
) -> None:
    """Write a `.safetensors` file with the network's options and other `facts` as metadata.

    The metadata is a single entry: the format keeps several entries in no fixed order, and equal
    weights should make equal files.
    """
    metadata = {METADATA: json.dumps({"network_g": dict(network), **facts})}
    # copies, because safetensors refuses a parameter that two keys share
    tensors = {key: value.contiguous() for key, value in copied(state_dict).items()}
    with atomic_write(path) as file:
        file.write(save(tensors, metadata))


def load_weights(path: str | Path) -> Weights:
    """Read a `.safetensors` or `.pth` file of weights.

    A state dict may be inside the dicts that authors save (`params_ema`, `params`, `state_dict`,
    `model`). Raises CheckpointError for other files.
    """
    path = Path(path)
    _require_file(path)
    if path.suffix != ".safetensors":
        return Weights(_unwrapped(_load_tensors(path), path), None, {})
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        facts = json.loads(metadata.get(METADATA, "{}"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: damaged, or no .safetensors file ({error})") from None
    return Weights(tensors, facts.pop("network_g", None), facts)


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a training state, completely or not at all."""
    content = io.BytesIO()  # torch.save to a file hides the reason of a failure
    torch.save(dict(state), content)
    with atomic_write(path) as file:
        file.write(content.getbuffer())


def load_state(path: str | Path) -> dict[str, Any]:
    """Read a training state onto the CPU. Raises CheckpointError for other files."""
    path = Path(path)
    _require_file(path)
    state = _load_tensors(path)
    if not isinstance(state, dict) or not state.keys() >= _STATE_KEYS:
        raise CheckpointError(
            f"{path}: not a training state; resume_state expects a file of training_states/"
        )
    return state


def copied(content: Any) -> Any:
    """Return `content` with a copy on the CPU of every tensor in its dicts and lists."""
    if isinstance(content, Tensor):
        return content.detach().to("cpu", copy=True)
    if isinstance(content, Mapping):
        return {key: copied(value) for key, value in content.items()}
    if isinstance(content, list):
        return [copied(value) for value in content]
    return content


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")


def _load_tensors(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; the errors below say more
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused:
            raise CheckpointError(
                f"{path}: holds a Python object ({refused[1]}), which could run code when read, "
                "and is refused; if you trust the file, load it yourself and save the tensors "
                "alone: torch.save(net.state_dict(), ...)"
            ) from None
        raise CheckpointError(
            f"{path}: damaged, or no PyTorch file (or a pickle of something other than tensors, "
            "which is not read because it could run code)"
        ) from None
    except Exception as error:  # the reader raises anything for damaged files
        reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise CheckpointError(f"{path}: damaged, or no PyTorch file ({reason})") from None


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in ("params_ema", "params", "state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path}: holds no state dict (a mapping of names to tensors)")
    return dict(content)
