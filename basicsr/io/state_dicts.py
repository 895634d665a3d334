"""State dicts in the wrappings of this field: found, unwrapped, checked, and given a digest."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from basicsr.utils.errors import CheckpointError

logger = logging.getLogger(__name__)

# Entries that hold a state dict, in the order of preference: averaged weights first.
AVERAGES = (
    "params_ema",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
    "g_ema",
    "ema_model",
    "ema",
    "shadow",
)
WRAPPERS = (
    *AVERAGES,
    "params",
    "state_dict",
    "model_state_dict",
    "model_state",
    "state_dict_g",
    "generator",
    "net_g",
    "netG",
    "G",
    "model",
    "module",
    "net",
    "network",
    "weights",
)
# In front of every key: parts of the program that the network was in.
PREFIXES = ("module.", "model.", "net.", "network.", "generator.", "net_g.", "netG.")
AVERAGE_PREFIX = "ema_model."  # beside keys of the network in training
# Anywhere in a key: added by torch.compile, FSDP and activation checkpointing.
INSERTIONS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
# Counters of THOP (total_ops, total_params) and of averages of weights.
NO_WEIGHTS = ("total_ops", "total_params", "n_averaged", "initted")

_DEEPEST = 4  # wrappers inside of each other


def unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict in the content of a file, without wrappers, prefixes and counters.

    A log line names averaged weights that are preferred, and entries that are left out.

    Raises:
        CheckpointError: There is none.
    """
    if is_foreign_state(content):
        raise CheckpointError(f"{path}: {describe_foreign_state(content)}")
    for _ in range(_DEEPEST):
        found = _wrapped(content, path)
        if found is None:
            break
        content = found
    if not isinstance(content, Mapping) or not any(map(_is_tensor, content.values())):
        raise CheckpointError(f"{path}: holds no state dict (a mapping of names to tensors)")
    if not all(isinstance(key, str) for key in content):
        raise CheckpointError(
            f"{path}: holds no state dict: its keys are not names of parameters; save "
            "net.state_dict()"
        )
    return _plain_names(content, path)


def is_foreign_state(content: Any) -> bool:
    """Return whether `content` is a training state of BasicSR or one of its descendants."""
    return isinstance(content, Mapping) and {"optimizers", "schedulers"} <= content.keys()


def describe_foreign_state(content: Mapping[Any, Any]) -> str:
    """Return what such a training state is, and what to do instead of resuming from it."""
    iteration = content.get("iter")
    number = iteration if isinstance(iteration, int) and 0 <= iteration < 10**9 else "..."
    return (
        f"a training state of BasicSR or Restormer (iteration {number}), which holds the state of "
        "their optimizer but no weights; it cannot be continued here. Start from the weights that "
        f"were saved with it: path.pretrain_network_g: .../models/net_g_{number}.pth"
    )


def _wrapped(content: Any, path: Path) -> Any:
    """Return the entry of `content` that holds the state dict, or None if there is none."""
    if not isinstance(content, Mapping):
        return None
    inner = [key for key in WRAPPERS if _holds_tensors(content.get(key))]
    if not inner:
        return _only_entry(content, path)
    chosen = inner[0]
    if len(inner) > 1 or chosen in AVERAGES:
        others = f"; the file has {', '.join(inner[1:])} too" if len(inner) > 1 else ""
        averaged = "averaged weights" if chosen in AVERAGES else "weights"
        logger.warning("%s: reading the %s, '%s'%s", path, averaged, chosen, others)
    return content[chosen]


def _only_entry(content: Mapping[Any, Any], path: Path) -> Any:
    """Return the entry of an unknown name that holds a state dict, or None if there is none."""
    inner = [key for key, value in content.items() if _holds_tensors(value)]
    if not inner:
        return None
    names = listed([repr(key) for key in inner])
    if len(inner) > 1:
        raise CheckpointError(
            f"{path}: holds several state dicts ({names}); save the one of the network alone: "
            f"torch.save(torch.load('{path.name}', weights_only=True)[{inner[0]!r}], 'net.pth')"
        )
    logger.warning("%s: reading the weights in %s", path, names)
    return content[inner[0]]


def _holds_tensors(content: Any, depth: int = _DEEPEST) -> bool:
    if not isinstance(content, Mapping) or depth == 0:
        return False
    return any(map(_is_tensor, content.values())) or any(
        _holds_tensors(content.get(key), depth - 1) for key in WRAPPERS
    )


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _plain_names(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Return the tensors of `content` by their names in the network."""
    averaged = any(key.startswith(AVERAGE_PREFIX) for key in content)
    tensors, others = {}, []
    for key, value in content.items():
        counter = key.rpartition(".")[2] in NO_WEIGHTS
        if not _is_tensor(value) or counter or averaged > key.startswith(AVERAGE_PREFIX):
            others.append(key)
        else:
            tensors[key.removeprefix(AVERAGE_PREFIX)] = value
    if others:
        logger.warning("%s: left out, as they are no weights to read: %s", path, listed(others))
    return without_prefixes(tensors)


def without_prefixes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without the parts of their names that DataParallel and the like add."""
    tensors = dict(tensors)
    for insertion in INSERTIONS:
        tensors = {key.replace(insertion, ""): value for key, value in tensors.items()}
    while prefix := _common_prefix(tensors):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def _common_prefix(tensors: Mapping[str, Tensor]) -> str | None:
    for prefix in PREFIXES:
        if tensors and all(key.startswith(prefix) and key != prefix for key in tensors):
            return prefix
    return None


def listed(names: list[str], count: int = 5) -> str:
    """Return the first `count` names for a message, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(name[:80] for name in names[:count]) + more


class Checked(NamedTuple):
    """Tensors that a network can load, and the names of the types that were converted."""

    tensors: dict[str, Tensor]
    converted: list[str]


def checked(tensors: Mapping[str, Tensor]) -> Checked:
    """Return the tensors, with all floating-point ones as float32.

    Raises:
        CheckpointError: A tensor is not finite, or of a type that weights cannot have.
    """
    converted: dict[str, None] = {}
    result = {}
    for key, value in tensors.items():
        if value.is_complex():
            raise CheckpointError(
                f"'{key[:100]}' is {_type_name(value)}; only tensors of real numbers are read"
            )
        if value.is_floating_point() and value.dtype != torch.float32:
            converted[_type_name(value)] = None
            value = value.float()
        result[key] = value
    require_finite(result)
    return Checked(result, list(converted))


def require_dense(tensors: Iterable[Tensor]) -> None:
    """Raise CheckpointError if a tensor is sparse, quantized or without data."""
    for value in tensors:
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise CheckpointError(
                f"holds a tensor of type {_type_name(value)} on {value.device.type}; only dense "
                "tensors with data are read"
            )


def require_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError, which names the first tensors, if some are not finite."""
    if bad := [name for name, value in tensors.items() if not is_finite(value)]:
        raise CheckpointError(
            f"the weights are not finite (NaN or inf in {listed(bad, 3)}): the training diverged, "
            "or the file is damaged; use an earlier checkpoint, or get the file again"
        )


def is_finite(tensor: Tensor) -> bool:
    """Return whether no element is NaN or inf; waits for the device."""
    floating = tensor.is_floating_point() and tensor.numel() > 0
    return not floating or bool(torch.isfinite(tensor).all())


def named_tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the key paths and the tensors in nested dicts, lists and tuples."""
    seen: set[int] = set()  # a damaged file may hold containers that contain themselves
    pending = [("", content)]
    while pending:
        name, value = pending.pop()
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, dict) else enumerate(value)
            inner = [(f"{name}.{key}" if name else str(key), each) for key, each in items]
            pending.extend(reversed(inner))


def _type_name(value: Tensor) -> str:
    if value.layout != torch.strided:
        return str(value.layout).removeprefix("torch.")
    return str(value.dtype).removeprefix("torch.")


def digest(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    """Return the SHA-256 of tensors (names, types, shapes and data) and of JSON `facts`."""
    hashed = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for key in sorted(tensors):
        value = tensors[key].detach().cpu().contiguous()
        hashed.update(f"\n{key} {value.dtype} {tuple(value.shape)}\n".encode())
        hashed.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()
