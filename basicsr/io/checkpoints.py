"""Read and write weights (.safetensors) and training states; reading never runs code."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from basicsr.io.state_dicts import (
    checked,
    describe_foreign_state,
    digest,
    is_finite,
    is_foreign_state,
    named_tensors,
    require_dense,
    require_finite,
    unwrapped,
)
from basicsr.io.torch_files import load_torch_file, require_plausible_size
from basicsr.utils.errors import CheckpointError, remedy
from basicsr.utils.files import atomic_write, mistaken_content

HUB_WEIGHTS = "model.safetensors"
"""Name of the weights in a repository of the Hugging Face hub."""
METADATA = "dtpnet-derain"
DIGEST = "sha256"
_STATE_TYPES: dict[str, Any] = {
    "iteration": int,
    "validation_due": bool,
    "identity": dict,
    "network": Mapping,
    "average": (Mapping, type(None)),
    "optimizer": Mapping,
}
_STATE_KEYS = _STATE_TYPES.keys()

logger = logging.getLogger(__name__)


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
    weights should make equal files. It includes a digest of the tensors and of itself.

    Raises:
        CheckpointError: The weights are not finite; nothing is written.
    """
    # copies, because safetensors refuses a parameter that two keys share
    tensors = {key: value.contiguous() for key, value in copied(state_dict).items()}
    try:
        require_finite(tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: not saved: {error}") from None
    content = json.loads(json.dumps({"network_g": dict(network), **facts}))
    content = {DIGEST: digest(tensors, content), **content}
    with atomic_write(path) as file:
        file.write(save(tensors, {METADATA: json.dumps(content)}))


def load_weights(path: str | Path) -> Weights:
    """Read a `.safetensors` or `.pth` file of weights.

    A state dict may be inside the dicts that authors save; `state_dicts` has the table. Other
    floating-point types are converted to float32, which is logged.

    Raises:
        CheckpointError: It is no such file, it is damaged, or its weights are not finite.
    """
    path = Path(path)
    _require_file(path)
    if path.suffix == ".safetensors":
        weights = _load_safetensors(path)
    else:
        content = _load_tensors(path)
        if isinstance(content, dict) and content.keys() >= _STATE_KEYS:
            raise CheckpointError(
                f"{path}: a training state of this project; name the weights that were saved with "
                "it, models/net_g_*.safetensors, or resume from it with path.resume_state"
            )
        weights = Weights(unwrapped(content, path), None, {})
    try:
        tensors, converted = checked(weights.state_dict)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    if converted:
        logger.warning("%s: converted from %s to float32", path, ", ".join(converted))
    return weights._replace(state_dict=tensors)


def _load_safetensors(path: Path) -> Weights:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, MemoryError):
        raise
    except (SafetensorError, Exception) as error:  # the reader raises anything for damaged files
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"{path}: damaged, or no .safetensors file ({reason}); get it again"
        ) from None
    if METADATA not in metadata:
        return Weights(unwrapped(tensors, path), None, {})
    facts = _metadata(metadata[METADATA], path)
    earlier = next(iter(facts)) == "network_g"  # written before there was a digest, the first key
    stored = facts.pop(DIGEST, None)
    if earlier:
        logger.info("%s: an earlier version wrote it without a digest; not verified", path)
    elif stored != digest(tensors, facts):
        raise CheckpointError(
            f"{path}: damaged: its digest is not that of its tensors and metadata; get it again, "
            "or use an earlier checkpoint"
        )
    return Weights(tensors, facts.pop("network_g", None), facts)


def _metadata(text: str, path: Path) -> dict[str, Any]:
    """Parse the metadata of this project. Raises CheckpointError if they are malformed."""
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path}: damaged: its metadata are no JSON ({reason})") from None
    network = facts.get("network_g") if isinstance(facts, dict) else facts
    if not isinstance(network, dict) or not isinstance(network.get("type"), str):
        convert = remedy(", or convert the original with scripts/convert_weights.py", page="")
        raise CheckpointError(
            f"{path}: damaged: its metadata do not name a network (network_g with a type); "
            f"get the file again{convert}"
        )
    return facts


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a training state, completely or not at all."""
    content = io.BytesIO()  # torch.save to a file hides the reason of a failure
    torch.save(dict(state), content)
    with atomic_write(path) as file:
        file.write(content.getbuffer())


def load_state(path: str | Path) -> dict[str, Any]:
    """Read a training state onto the CPU.

    Raises:
        CheckpointError: It is no such file, it is damaged, or not all its tensors are finite.
    """
    path = Path(path)
    _require_file(path)
    state = _load_tensors(path)
    if is_foreign_state(state):
        raise CheckpointError(f"{path}: {describe_foreign_state(state)}")
    if not isinstance(state, dict) or not state.keys() >= _STATE_KEYS:
        raise CheckpointError(
            f"{path}: not a training state; resume_state expects a file of training_states/ "
            "(weights alone are started from by path.pretrain_network_g)"
        )
    for key, expected in _STATE_TYPES.items():
        if not isinstance(state[key], expected):
            raise CheckpointError(
                f"{path}: damaged: its {key} is a {type(state[key]).__name__}; use another"
            )
    if bad := non_finite_parts(state):
        raise CheckpointError(
            f"{path}: not finite (NaN or inf in {', '.join(bad[:3])}): the training had diverged; "
            "resume from an earlier state, with a lower lr or clip_grad_norm"
        )
    return state


def non_finite_parts(state: Mapping[str, Any]) -> list[str]:
    """Return the names of the tensors in a training state that hold NaN or inf."""
    parts = {key: state[key] for key in ("network", "average", "optimizer")}
    return [name for name, value in named_tensors(parts) if not is_finite(value)]


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
    with path.open("rb") as file:
        fault = mistaken_content(file.read(512))
    if fault:
        raise CheckpointError(f"{path}: {fault}")


def _load_tensors(path: Path) -> Any:
    content = load_torch_file(path)
    tensors = [value for _, value in named_tensors(content)]
    try:
        require_dense(tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    # a tensor may be a view that repeats its data
    require_plausible_size(path, sum(each.numel() * each.element_size() for each in tensors))
    return content
