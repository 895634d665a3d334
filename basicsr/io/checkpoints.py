"""Weights as .safetensors, and training states; nothing that is read can run code."""

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
    """A state dict, the `network_g` options it was saved with (None in foreign files), and the
    other facts that were saved with it."""

    state_dict: dict[str, Tensor]
    network: dict[str, Any] | None
    facts: dict[str, Any]


def save_weights(
    path: Path, state_dict: Mapping[str, Tensor], network: Mapping[str, Any], **facts: Any
) -> None:
    """Write a `.safetensors` file with the network's options and other `facts` as metadata.

    They are one entry of it: the format keeps several in no fixed order, and equal weights should
    be equal files.
    """
    metadata = {METADATA: json.dumps({"network_g": dict(network), **facts})}
    # copies, because a parameter that a network shares with itself is refused otherwise
    tensors = {key: value.contiguous() for key, value in copied(state_dict).items()}
    with atomic_write(path) as file:
        file.write(save(tensors, metadata))


def load_weights(path: str | Path) -> Weights:
    """Read our `.safetensors`, or the tensors of a `.pth`, wrapped as authors wrap them or not."""
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
    """Write a training state, complete or not at all."""
    content = io.BytesIO()  # torch.save to a file hides what went wrong with the file
    torch.save(dict(state), content)
    with atomic_write(path) as file:
        file.write(content.getbuffer())


def load_state(path: str | Path) -> dict[str, Any]:
    """Read a training state back onto the CPU."""
    path = Path(path)
    _require_file(path)
    state = _load_tensors(path)
    if not isinstance(state, dict) or not state.keys() >= _STATE_KEYS:
        raise CheckpointError(
            f"{path}: no training state; resume_state wants a file of training_states/"
        )
    return state


def copied(content: Any) -> Any:
    """`content` with a copy on the CPU of every tensor in its dicts and lists."""
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
            warnings.simplefilter("ignore")  # of pickle protocols; the errors below say more
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused:
            raise CheckpointError(
                f"{path}: holds a Python object ({refused[1]}), which could run code when read, "
                "and is refused; where you trust the file, load it yourself and keep only the "
                "tensors: torch.save(net.state_dict(), ...)"
            ) from None
        raise CheckpointError(
            f"{path}: damaged, or no PyTorch file (or a pickle of something other than tensors, "
            "which is not read because it could run code)"
        ) from None
    except Exception as error:  # a damaged file can make the reader stumble over anything
        reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise CheckpointError(f"{path}: damaged, or no PyTorch file ({reason})") from None


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in ("params_ema", "params", "state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path}: holds no state dict (a mapping of names to tensors)")
    return dict(content)
