"""Golden cases: outputs of published implementations for random weights and inputs."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent.parent / "golden"


@dataclass
class Case:
    """Run of a published implementation; `facts` is the whole JSON file of the case."""

    facts: dict[str, Any]
    state_dict: dict[str, Tensor]
    input: Tensor
    outputs: dict[str, Tensor]


def load_case(name: str) -> Case:
    facts = json.loads((FOLDER / f"{name}.json").read_text())
    with np.load(FOLDER / f"{name}.npz") as stored:
        outputs = {key: torch.from_numpy(stored[key]) for key in stored}
    weights = {
        key: torch.from_numpy(_filled(key, tuple(shape)))
        for key, shape in facts["state_dict"].items()
    }
    return Case(facts, weights, torch.from_numpy(_image(name, facts["input_shape"])), outputs)


def assert_matches(actual: Tensor, expected: Tensor) -> None:
    """Compare with a published output, within 1e-4 of its largest value (or of 1, if larger)."""
    assert actual.shape == expected.shape
    worst = (actual.detach().cpu() - expected).abs().max().item()
    assert worst <= 1e-4 * max(1.0, expected.abs().max().item())


def _filled(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the value of a parameter or buffer by its published key.

    The stream of NumPy's RandomState is the same in all versions.
    """
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("running_var"):
        value = 1.0 + 0.1 * np.abs(noise)
    elif name.endswith(("running_mean", "bias")):
        value = 0.05 * noise
    elif len(shape) <= 1 or name.endswith("temperature"):  # norm scales, PReLU slopes
        value = (0.25 if shape == (1,) else 1.0) + 0.1 * noise
    else:
        value = noise / np.sqrt(np.prod(shape[1:]))
    return np.asarray(value, np.float32)


def _image(case: str, shape: list[int]) -> np.ndarray:
    """Return the input of `case`: float32 in [0, 1), NCHW."""
    state = np.random.RandomState(zlib.crc32(f"input:{case}".encode()))
    return state.random_sample(shape).astype(np.float32)
