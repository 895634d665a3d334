"""Weights of DID-MDN's published files that have no influence on any output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


def _norm(name: str) -> Iterator[str]:
    for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        yield f"{name}.{key}"


def _convs(*names: str) -> Iterator[str]:
    for name in names:
        yield from (f"{name}.weight", f"{name}.bias")


def dead_in_derainer() -> set[str]:
    """Return the keys of the published de-rainer without influence on any output."""
    dead = {*_norm("batchnorm20"), *_norm("batchnorm1")}
    for stream in ("dense0", "dense1", "dense2"):
        dead.update(_convs(*(f"{stream}.conv{i}1" for i in range(2, 7))))
    for stream in ("dense1", "dense2"):
        dead.update(_convs(f"{stream}.conv_refin", f"{stream}.refine3"))
        dead.update(_norm(f"{stream}.batchnorm20"), _norm(f"{stream}.batchnorm1"))
    return dead


def dead_in_residual_net() -> set[str]:
    """Return the keys of the published residual net without influence on any output."""
    dead = {*_norm("batchnorm20"), *_norm("batchnorm1")}
    for i in range(1, 7):
        dead.update((f"dense_block{i}.conv1.weight", f"dense_block{i}.conv2.weight"))
        dead.update(_norm(f"dense_block{i}.bn1"), _norm(f"dense_block{i}.bn2"))
        dead.update((f"trans_block{i}.conv1.weight", *_norm(f"trans_block{i}.bn1")))
    for stream in ("dense1", "dense2"):
        pyramid = (f"{stream}.conv10{i}0" for i in range(1, 5))
        dead.update(_convs(f"{stream}.conv_refin", f"{stream}.refine3", *pyramid))
        dead.update(_norm(f"{stream}.batchnorm20"), _norm(f"{stream}.batchnorm1"))
    return dead


def dead_weights(keys: set[str], live: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return values for weights without influence, which the authors' code needs to load a file.

    Args:
        keys: names of `dead_in_derainer` or `dead_in_residual_net`.
        live: the other weights of the file.
    """
    return {key: _dead_weight(key, live) for key in sorted(keys)}


def _dead_weight(key: str, live: Mapping[str, Tensor]) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.long)
    module, _, parameter = key.rpartition(".")
    parent, _, name = module.rpartition(".")
    if parent.startswith(("dense_block", "trans_block")):
        shape = _block_shape(parent, name)
    elif name in _DEAD_SHAPES:
        shape = _DEAD_SHAPES[name]
    elif name.startswith("conv10"):
        shape = (1, 20, 1, 1)
    else:  # "conv21" to "conv61": side convolutions; from the fourth on they read two maps
        number = int(name[4])
        channels = live[f"{parent}.trans_block{number}.conv1.weight"].shape[1]
        shape = (1, channels if number < 4 else 2 * channels, 3, 3)
    if parameter == "running_var":
        return torch.ones(shape[:1])
    return torch.zeros(shape if parameter == "weight" else shape[:1])


def _block_shape(block: str, name: str) -> tuple[int, ...]:
    """Return the shape of a convolution or norm of a dense block of the residual net."""
    channels, growth, out = _DEAD_BLOCKS[int(block[-1]) - 1]
    inner = 4 * growth
    if block.startswith("trans_block"):
        return {"bn1": (channels + growth,), "conv1": (channels + growth, out, 1, 1)}[name]
    return {
        "bn1": (channels,),
        "conv1": (inner, channels, 1, 1),
        "bn2": (inner,),
        "conv2": (growth, inner, 3, 3),
    }[name]


_DEAD_BLOCKS = ((3, 13, 8), (8, 16, 16), (16, 32, 16), (16, 16, 16), (16, 8, 8), (8, 8, 4))
"""Input channels, growth and channels after the transition of the six blocks."""
_DEAD_SHAPES: Mapping[str, tuple[int, ...]] = {
    "batchnorm20": (20,),
    "batchnorm1": (1,),
    "conv_refin": (20, 11, 3, 3),
    "refine3": (3, 24, 3, 3),
}
