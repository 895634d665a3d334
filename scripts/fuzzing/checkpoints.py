"""Mutated files of weights and training states: their bytes, their metadata and their content."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from basicsr.archs import build_network
from basicsr.io.checkpoints import METADATA, load_state, save_weights
from basicsr.models.pretrained import network_with_weights, saved_network
from basicsr.utils.registry import ARCH_REGISTRY, options_of
from fuzzing.base import ODD_VALUES, Target, mutated_bytes, mutated_tree, pick

LEVELS = {"num_blocks": (1, 1, 1, 1), "num_refinement_blocks": 1, "heads": (1, 1, 1, 1)}
NETWORKS: tuple[dict[str, Any], ...] = (
    {"type": "PReNet", "channels": 8, "recurrent_iter": 2},
    {"type": "PRN_r", "channels": 8, "recurrent_iter": 2},
    {"type": "Restormer", "dim": 8, **LEVELS},
    {"type": "DTPNet", "dim": 8, **LEVELS, "recurrent_channels": 8, "recurrent_iter": 2},
    {"type": "MPRNet", "n_feat": 8, "scale_unetfeats": 4, "scale_orsnetfeats": 4, "num_cab": 1},
)
WRAPPERS = ("params", "params_ema", "state_dict", "model", "net", "generator", "ema", "x")
PREFIXES = ("module.", "_orig_mod.", "module._orig_mod.", "net_g.", "x.")
ODD_TEXTS = ("[]", "5", "null", "{}", '"a"', "[" * 5000, "{", "", "9" * 5000, '{"network_g": 5}')


class Checkpoints(Target):
    """Files of weights and states; each is read in one of the ways that commands read them."""

    name = "checkpoints"

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.networks = [build_network(options) for options in NETWORKS]

    def make(self, rng: random.Random, folder: Path) -> Path:
        path = folder / rng.choice(("net.safetensors", "net.pth", "net.pth.tar", "1.state"))
        if path.suffix == ".safetensors":
            data = pick(rng, lambda: self._ours(rng, path), lambda: self._foreign(rng))
        else:
            data = self._pickled(rng)
        if rng.random() < 0.5:
            data = mutated_bytes(data, rng, (b"PK\x05\x06", b"\x80\x02}", b"(", b")\x85\x85"))
        path.write_bytes(data)
        return path

    def _ours(self, rng: random.Random, path: Path) -> bytes:
        """Return a file of this project, perhaps with other options of its network."""
        network = rng.choice(self.networks)
        options = options_of(network)
        if rng.random() < 0.7:
            options = mutated_tree(json.loads(json.dumps(options)), rng)
        try:
            save_weights(path, network.state_dict(), options, iteration=1, scores=[])
        except (ValueError, TypeError):  # no JSON
            save_weights(path, network.state_dict(), options_of(network), iteration=1)
        return path.read_bytes()

    def _foreign(self, rng: random.Random) -> bytes:
        """Return a .safetensors file with changed tensors, metadata or header."""
        tensors = _only_tensors(_odd_tensors(_published(rng.choice(self.networks)), rng))
        metadata = {rng.choice((METADATA, "format")): rng.choice((*ODD_TEXTS, "pt"))}
        data = save(tensors, metadata if rng.random() < 0.5 else None)
        if rng.random() < 0.5:
            return data
        length = struct.unpack("<Q", data[:8])[0]
        header = mutated_tree(json.loads(data[8 : 8 + length]), rng)
        text = json.dumps(header, default=str).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + length :]

    def _pickled(self, rng: random.Random) -> bytes:
        """Return a file of torch.save: wrapped weights, a training state, or odd values."""
        weights: Any = _published(rng.choice(self.networks))
        if rng.random() < 0.6:
            weights = _odd_tensors(weights, rng)
        for _ in range(rng.randrange(3)):
            prefix = rng.choice(PREFIXES)
            weights = {f"{prefix}{key}": value for key, value in weights.items()}
        content: Any = weights
        for _ in range(rng.randrange(4)):
            content = {rng.choice(WRAPPERS): content, "epoch": 3, "best": np.float64(30.5)}
        if rng.random() < 0.3:
            content = {
                "iteration": 1, "validation_due": False, "identity": {}, "average": None,
                "network": weights, "optimizer": {"state": {0: {"step": 1}}, "param_groups": []},
            }  # fmt: skip
        if rng.random() < 0.1:
            content = {"iter": 9, "epoch": 1, "optimizers": [], "schedulers": []}
        if rng.random() < 0.3:
            content = mutated_tree(content, rng)
        file = io.BytesIO()
        torch.save(content, file, _use_new_zipfile_serialization=rng.random() < 0.7)
        return _packed_again(file.getvalue(), rng) if rng.random() < 0.2 else file.getvalue()

    def read(self, path: Path, rng: random.Random) -> None:
        options = rng.choice(NETWORKS)
        pick(
            rng,
            lambda: saved_network(path),
            lambda: saved_network(path, rng.choice(ARCH_REGISTRY.names())),
            lambda: saved_network(path, options["type"]),
            lambda: network_with_weights(options, path),
            lambda: network_with_weights(options, path, strict=False),
            lambda: load_state(path),
        )


def _published(network: Any) -> dict[str, Tensor]:
    """Return the weights under the names of their authors."""
    weights: dict[str, Tensor] = {}
    for key, value in network.state_dict().items():
        names = network.published_keys(key)
        weights.update(zip(names, value.chunk(len(names)), strict=True))
    return weights


def _odd_tensors(weights: dict[str, Tensor], rng: random.Random) -> dict[Any, Any]:
    """Return weights of which some are missing, renamed, or of another type, shape or kind."""
    changed: dict[Any, Any] = dict(weights)
    for _ in range(rng.randint(1, 3)):
        key = rng.choice(list(weights))
        value = weights[key]
        odd = (
            lambda value=value: value.double(),
            lambda value=value: value.to(torch.bfloat16),
            lambda value=value: value.to(torch.int8),
            lambda value=value: value.to(torch.complex64),
            lambda value=value: value * float("nan"),
            lambda value=value: value / 0,
            lambda value=value: value.flatten(),
            lambda value=value: value[:1],
            lambda value=value: value[..., :0],
            lambda value=value: torch.zeros(()),
            lambda value=value: torch.zeros(1).expand(10**9, 10**9),
            lambda value=value: value.flatten().to_sparse(),
            lambda value=value: torch.zeros(rng.choice((0, 1, 2, 4097)), 3, 3, 3),
            lambda value=value: rng.choice(ODD_VALUES),
        )
        change = rng.random()
        if change < 0.7:
            changed[key] = pick(rng, *odd)
        elif change < 0.8:
            changed.pop(key, None)
        else:
            changed[rng.choice((0, "", f"{key}.x", "total_ops", "." * 300, None))] = value
    return changed


def _only_tensors(content: dict[Any, Any]) -> dict[str, Tensor]:
    """Return what a .safetensors file can hold of `content`."""
    return {
        str(key): value.contiguous().clone()
        for key, value in content.items()
        if isinstance(value, Tensor) and value.layout == torch.strided and value.numel() < 10**6
    }


def _packed_again(data: bytes, rng: random.Random) -> bytes:
    """Return a zip archive compressed, with entries missing, repeated, longer or odd."""
    if data[:2] != b"PK":
        return data
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(packed, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if rng.random() < 0.05:
                content = rng.choice((b"", content * 2, bytes(2**25), mutated_bytes(content, rng)))
            for _ in range(rng.choices((0, 1, 2), (1, 30, 1))[0]):
                kind = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
                new.writestr(entry.filename, content, kind)
    return packed.getvalue()


TARGET = Checkpoints()
