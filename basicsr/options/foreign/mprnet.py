"""Translation of MPRNet's training.yml, together with what its train.py adds to it.

The file has data, batch size, epochs and learning rates; network, losses, warm-up and mixup are in
the code of each task (github.com/swz30/MPRNet).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from basicsr.io.images import list_images
from basicsr.options.foreign.notes import Notes, is_count, is_number
from basicsr.utils.errors import DataError
from basicsr.utils.files import expanded

WARM_UP_EPOCHS = 3


class _Task(NamedTuple):
    """Network, losses of each stage, and further options of `train`, that the code has."""

    network: dict[str, int]
    losses: list[dict[str, Any]]
    seed: int = 1234
    adam: Mapping[str, float] = {}
    further_epochs: int = 0  # of the cosine, beyond the end of training
    mixup_after: int | None = None  # epochs


_CHARBONNIER = {"type": "CharbonnierLoss"}
_EDGE = {"type": "EdgeLoss", "weight": 0.05}
_TASKS = {
    "Deraining": _Task({}, [_CHARBONNIER, _EDGE]),
    "Deblurring": _Task(
        {"n_feat": 96, "scale_unetfeats": 48, "scale_orsnetfeats": 32}, [_CHARBONNIER, _EDGE]
    ),
    "Denoising": _Task(
        {"n_feat": 80, "scale_unetfeats": 48, "scale_orsnetfeats": 32},
        [{**_CHARBONNIER, "clamp": True}],
        adam={"weight_decay": 1e-8},
        further_epochs=40,
        mixup_after=5,
    ),
}


_SECTIONS = ("GPU", "VERBOSE", "MODEL", "OPTIM", "TRAINING")
_USED = {
    *(f"OPTIM.{key}" for key in ("BATCH_SIZE", "NUM_EPOCHS", "LR_INITIAL", "LR_MIN")),
    *(f"TRAINING.{key}" for key in ("TRAIN_PS", "VAL_PS", "VAL_AFTER_EVERY", "RESUME")),
    *(f"TRAINING.{key}" for key in ("TRAIN_DIR", "VAL_DIR")),
}


def is_foreign(raw: Mapping[str, Any]) -> bool:
    """Return whether a file has the sections of MPRNet's training.yml."""
    return all(isinstance(raw.get(key), dict) for key in ("MODEL", "OPTIM", "TRAINING"))


def training(notes: Notes, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the training run; problems are noted as unsupported."""
    optim, train = raw["OPTIM"], raw["TRAINING"]
    mode = str(raw["MODEL"].get("MODE"))
    if mode not in _TASKS:
        notes.unsupported.append(f"MODEL.MODE: {mode!r} is none of {', '.join(_TASKS)}")
    task = _TASKS.get(mode, _TASKS["Deraining"])
    numbers = {f"OPTIM.{key}": optim.get(key) for key in ("BATCH_SIZE", "NUM_EPOCHS")} | {
        f"TRAINING.{key}": train.get(key, 1) for key in ("TRAIN_PS", "VAL_AFTER_EVERY")
    }
    for key, value in numbers.items():
        if not is_count(value) or value < 1:
            notes.unsupported.append(f"{key}: expected a whole number of at least 1, not {value!r}")
            numbers[key] = WARM_UP_EPOCHS + 1
    batch, epochs, side, val_every = numbers.values()
    if train.get("RESUME"):
        notes.unsupported.append("TRAINING.RESUME: start train.py with --auto_resume instead")
    data = _folders(train, "TRAIN_DIR")
    epoch = -(-_images(notes, data) // batch)
    notes.mapped.append(
        f"MODEL.MODE: {mode} -> network, losses, warm-up and seed of its train.py; an epoch is "
        f"{epoch} iterations"
    )
    epochs_of_cosine = max(epochs - WARM_UP_EPOCHS, 1) + task.further_epochs
    settings: dict[str, Any] = {
        "total_iter": epochs * epoch,
        "optim_g": {"type": "Adam", "lr": _rate(notes, optim, "LR_INITIAL"), **task.adam},
        "scheduler": {
            "type": "CosineAnnealingRestartCyclicLR",
            "periods": [WARM_UP_EPOCHS * epoch, epochs_of_cosine * epoch],
            "eta_mins": [_rate(notes, optim, "LR_INITIAL"), _rate(notes, optim, "LR_MIN")],
        },
        "warmup_iter": WARM_UP_EPOCHS * epoch,
        "losses": [{**loss, "stage": stage} for stage in range(3) for loss in task.losses],
    }
    if task.mixup_after is not None:
        start = task.mixup_after * epoch
        settings["mixup"] = {
            "beta": 0.6,
            "probability": 1.0,
            "per_sample": True,
            "start_iter": start,
        }
    pairs = {"type": "PairedImageDataset"}
    patches = [{"size": side, "batch_size": batch, "iters": epochs * epoch}]
    options: dict[str, Any] = {
        "name": f"{raw['MODEL'].get('SESSION', 'MPRNet')}_{mode}",
        "model_type": "RestorationModel",
        "manual_seed": task.seed,
        "network_g": {"type": "MPRNet", **task.network},
        "datasets": {"train": {"name": "train", **pairs, **data, "patches": patches}},
        "train": settings,
    }
    if "VAL_DIR" in train:
        options["datasets"]["val"] = {"name": "val", **pairs, **_folders(train, "VAL_DIR")}
        options["val"] = {"val_freq": val_every * epoch, "protocols": ["rgb"]}
        notes.mapped.append("TRAINING.VAL_PS -> whole images are validated")
    unneeded = [key for key in ("GPU", "VERBOSE") if key in raw]
    for name in ("OPTIM", "TRAINING"):
        unneeded += [f"{name}.{key}" for key in raw[name] if f"{name}.{key}" not in _USED]
    if unneeded:
        notes.mapped.append(f"not needed here: {', '.join(unneeded)}")
    own = {key: value for key, value in raw.items() if key not in _SECTIONS}
    return _merged(options, own)


def _merged(options: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return `options` with the values of `own`, options of this project, in all their sections."""
    merged = {**options, **own}
    for key, value in own.items():
        if isinstance(value, dict) and isinstance(options.get(key), dict):
            merged[key] = _merged(options[key], value)
    return merged


def _folders(train: Mapping[str, Any], key: str) -> dict[str, str]:
    root = str(train.get(key)).rstrip("/")
    return {"dataroot_lq": f"{root}/input", "dataroot_gt": f"{root}/target"}


def _images(notes: Notes, data: Mapping[str, str]) -> int:
    """Return the number of training pairs, which epochs are converted to iterations with."""
    folder: Path = expanded(data["dataroot_gt"])
    try:
        return max(len(list_images(folder)), 1)
    except (DataError, OSError):
        notes.unsupported.append(
            f"TRAINING.TRAIN_DIR: no images in {folder}, which are counted to convert epochs to "
            "iterations; give the folder that holds input/ and target/"
        )
        return 1


def _rate(notes: Notes, optim: Mapping[str, Any], key: str) -> float:
    rate = optim.get(key)
    if rate is not None and is_number(rate):
        return float(rate)
    line = f"OPTIM.{key}: expected a number, not {rate!r}"
    if line not in notes.unsupported:
        notes.unsupported.append(line)
    return 1.0
