"""Strict reading of published state dicts, with errors that name the system they belong to."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from basicsr.utils.errors import CheckpointError

logger = logging.getLogger(__name__)

# For each published layout, and for this project's where it differs: a key no other system has.
_CHARACTERISTIC_KEYS = {
    "patch_embed.transform2.weight": "DTPNet",
    "encoder.downs.2.body.0.weight": "DTPNet (in this project's layout)",
    "patch_embed.proj.weight": "Restormer",
    "shallow_feat1.0.weight": "MPRNet",
    "encoders.0.0.sca.1.weight": "NAFNet",
    "refineclean1.weight": "DID-MDN's de-rainer",
    "dense_block1.conv1.weight": "DID-MDN's residual net",
    "dense_classifier.weight": "DID-MDN's density classifier",
    "derainer.refineclean1.weight": "DID-MDN (in this project's layout)",
    "localization.to_mask.weight": "SPAIR (in this project's layout)",
}


def system_of(state_dict: Mapping[str, Tensor]) -> str | None:
    """Return the name of the system whose layout `state_dict` has, or None."""
    for key, system in _CHARACTERISTIC_KEYS.items():
        if key in state_dict:
            return system
    if "res_conv1.0.weight" in state_dict and "conv0.0.weight" in state_dict:
        return _prenet_variant(state_dict)
    if "conv_in.weight" in state_dict and "blocks.0.0.weight" in state_dict:
        return "the PReNet family (in this project's layout)"
    return None


def published_part(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a published network that are under a name, without that name.

    Programs that hold the network as `self.derainer` save its weights as `derainer.KEY`, beside
    those of losses and the like. Other state dicts are returned as they are.
    """
    known = (*_CHARACTERISTIC_KEYS, "res_conv1.0.weight")
    found = {
        key.removesuffix(each)
        for each in known
        for key in state_dict
        if key == each or key.endswith(f".{each}")
    }
    prefix = found.pop() if len(found) == 1 else ""
    part = {
        key.removeprefix(prefix): value
        for key, value in state_dict.items()
        if key.startswith(prefix)
    }
    if prefix:
        others = len(state_dict) - len(part)
        left_out = f"; {others} other weights are left out" if others else ""
        logger.warning("reading the weights under '%s'%s", prefix, left_out)
    return part


def _prenet_variant(state_dict: Mapping[str, Tensor]) -> str:
    shared = "res_conv2.0.weight" not in state_dict
    if "conv_z.0.weight" in state_dict:
        return "PReNet_GRU"
    if "conv_i.0.weight" not in state_dict:
        return "PRN_r" if shared else "PRN"
    if state_dict["conv0.0.weight"].shape[1:2] == (3,):
        return "PReNet_x"
    return "PReNet_r" if shared else "PReNet or PReNet_LSTM"


def looks_like(state_dict: Mapping[str, Tensor]) -> str:
    """Return "; it looks like a checkpoint of ..." for the end of a message, or nothing."""
    system = system_of(state_dict)
    return f"; it looks like a checkpoint of {system}" if system else ""


class Released:
    """Published state dict from which the sizes of a network are read.

    All methods raise CheckpointError if a key is missing.
    """

    def __init__(self, system: str, state_dict: Mapping[str, Tensor]) -> None:
        self.system = system
        self.state_dict = state_dict

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of the weight `key`, which is that of a 2-d convolution or has 3 axes.

        All sides are at least 1.
        """
        if key not in self.state_dict:
            raise self.error(f"'{key}' is missing")
        shape = tuple(self.state_dict[key].shape)
        axes = 3 if key.endswith("temperature") else 4
        if len(shape) != axes or 0 in shape:
            raise self.error(f"'{key}' has the shape {shape}, and not {axes} axes")
        return shape

    def length(self, prefix: str) -> int:
        """Return the number of consecutive modules `prefix.0`, `prefix.1`, ...; at least one."""
        present = {
            key.removeprefix(prefix + ".").split(".")[0]
            for key in self.state_dict
            if key.startswith(prefix + ".")
        }
        count = 0
        while str(count) in present:
            count += 1
        if not count:
            raise self.error(f"'{prefix}.0' is missing")
        return count

    def heads(self, prefix: str) -> int:
        """Return the number of attention heads of the blocks `prefix.0`, `prefix.1`, ..."""
        return self.shape(f"{prefix}.0.attn.temperature")[0]

    def expansion_factor(self, dim: int, levels: Sequence[str]) -> float:
        """Return the factor with the fewest digits that gives the feed-forward hidden channels.

        The blocks of the i-th of `levels` have `dim` * 2^i channels.
        """
        hidden = {
            dim * 2**i: self.shape(f"{level}.0.ffn.project_out.weight")[1]
            for i, level in enumerate(levels)
        }
        lowest = max(channels / width for width, channels in hidden.items())
        for digits in range(1, 13):
            factor = math.ceil(lowest * 10**digits) / 10**digits
            if all(int(width * factor) == channels for width, channels in hidden.items()):
                return factor
        raise self.error(f"no single factor widens the feed-forward parts to {hidden}")

    def error(self, fault: str) -> CheckpointError:
        return CheckpointError(
            f"not a published {self.system} checkpoint: {fault}{looks_like(self.state_dict)}"
        )


def strict_load(
    net: nn.Module,
    state_dict: Mapping[str, Tensor],
    published: Callable[[str], Sequence[str]] = lambda key: (key,),
) -> None:
    """Load all of `state_dict` into all of `net`.

    Args:
        net: network or module.
        state_dict: its weights.
        published: maps a key of `net` to its names in `state_dict`; with several names, the
            parameter is their concatenation along the first axis.

    Raises:
        CheckpointError: Keys are missing or left over, or shapes differ.
    """
    if misfit := misfits(net, state_dict, published):
        raise CheckpointError(
            f"the weights do not fit {type(net).__name__}: {misfit}{looks_like(state_dict)}"
        )
    net.load_state_dict(
        {
            key: torch.cat([state_dict[name] for name in names])
            if len(names) > 1
            else state_dict[names[0]]
            for key in net.state_dict()
            for names in [published(key)]
        }
    )


def misfits(
    net: nn.Module,
    state_dict: Mapping[str, Tensor],
    published: Callable[[str], Sequence[str]] = lambda key: (key,),
) -> str:
    """Return why `state_dict` cannot be loaded into `net`, in one line, or an empty string."""
    expected: dict[str, tuple[int, ...]] = {}
    for key, value in net.state_dict().items():
        shape, names = tuple(value.shape), published(key)
        part = shape if len(names) == 1 else (shape[0] // len(names), *shape[1:])
        expected.update(dict.fromkeys(names, part))
    different = [
        f"{key} is {tuple(value.shape)}, not {expected[key]}"
        for key, value in state_dict.items()
        if key in expected and tuple(value.shape) != expected[key]
    ]
    floating = {
        name: value.is_floating_point()
        for key, value in net.state_dict().items()
        for name in published(key)
    }
    mistyped = [
        f"{key} is {str(value.dtype).removeprefix('torch.')}"
        for key, value in state_dict.items()
        if floating.get(key) and not value.is_floating_point()
    ]
    faults = {
        "missing": [key for key in expected if key not in state_dict],
        "surplus": [key for key in state_dict if key not in expected],
        "of another shape": different,
        "of another type": mistyped,
    }
    return "; ".join(f"{fault}: {_first(found)}" for fault, found in faults.items() if found)


def _first(found: Sequence[str], count: int = 3) -> str:
    more = len(found) - count
    return ", ".join(found[:count]) + (f" and {more} more" if more > 0 else "")
