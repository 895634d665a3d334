"""Resuming a run: the training state to continue from, and whether it belongs to this run."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from basicsr.data import RestorationDataset
from basicsr.options import TrainOptions
from basicsr.training.run_folder import RunFolder, verified_state
from basicsr.utils.errors import CheckpointError

logger = logging.getLogger(__name__)

MAY_CHANGE = (
    "name",
    "device",
    "path.*",
    "logger.*",
    "datasets.*.name",
    "datasets.*.dataroot*",  # the fingerprint compares the images themselves
    "datasets.*.meta_info_file",
    "datasets.*.pairing*",
    "datasets.*.cache*",
    "datasets.train.num_worker_per_gpu",
    "datasets.train.*bad_image*",
    "datasets.train.patches.*",  # compared by _continues
    "train.total_iter",
    "train.time_limit",
    "train.accumulation_steps",
    "train.sharded",
    "train.compile",
    "train.nonfinite_limit",
    "train.stall_timeout",
    "val.val_freq",
    "val.save_img",
)
"""Options that may differ in a resumed run, as they do not change the result of training."""


class Resumed(NamedTuple):
    """Training state to continue from (empty for a new run), and whether it is of this folder."""

    state: dict[str, Any]
    own: bool


def state_to_resume(options: TrainOptions, folder: RunFolder, auto: bool) -> Resumed:
    """Return the newest state of `folder` if `auto` and there is one, else path.resume_state."""
    state = folder.latest_state() if auto else None
    if state is not None:
        return Resumed(state, True)
    if options.path.resume_state is None:
        return Resumed({}, False)
    file = Path(options.path.resume_state)
    return Resumed(verified_state(file), file.resolve().parent.parent == folder.path.resolve())


def require_same_run(state: Mapping[str, Any], identity: Mapping[str, Any], force: bool) -> None:
    """Raise CheckpointError if `state` is of a run with another identity, unless `force`d.

    Args:
        state: the training state to continue from.
        identity: `run_identity` of the present options and data.
        force: only warn of the differences.
    """
    done = state["iteration"]
    try:
        changes = list(_changes(state["identity"], identity, done))
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            "the training state is damaged, or of another version: the options and data in it "
            f"cannot be compared ({error!r}); start from weights with path.pretrain_network_g"
        ) from None
    if changes and not force:
        raise CheckpointError(
            f"this is not the run that was interrupted at iteration {done}: {'; '.join(changes)}. "
            "Undo the changes, or resume in spite of them with --force"
        )
    for change in changes:
        logger.warning("resumed because of --force, although %s", change)


def run_identity(
    options: TrainOptions, datasets: Mapping[str, RestorationDataset]
) -> dict[str, Any]:
    """Return what identifies a run: its options, and fingerprints of its data sets by key."""
    data = {f"datasets.{key}": dataset.fingerprint() for key, dataset in datasets.items()}
    return {"options": options.model_dump(mode="json"), "data": data}


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], done: int) -> Iterator[str]:
    """Describe each difference that matters after `done` iterations."""
    were, are = (each["options"]["datasets"]["train"]["patches"] for each in (before, now))
    if not _continues(were, are, done):
        yield f"datasets.train.patches are {json.dumps(are)}, were {json.dumps(were)}"
    old, new = (dict(_flat(identity["options"])) for identity in (before, now))
    may_change = set(MAY_CHANGE)
    if now["options"]["train"]["mixup"]:  # it mixes the patches of a micro-batch
        may_change.remove("train.accumulation_steps")
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key) and not any(fnmatchcase(key, each) for each in may_change):
            yield f"{key} is {_shown(new, key)}, was {_shown(old, key)}"
    for key in before["data"].keys() & now["data"].keys():
        was, is_ = before["data"][key], now["data"][key]
        if is_["images"] != was["images"]:
            yield f"{key} has {is_['images']} images, had {was['images']}"
        elif was != is_:
            yield f"{key}: of the {is_['images']} images some have changed"


def _continues(old: list[dict], new: list[dict], done: int) -> bool:
    """Return whether `new` continues the patch schedule `old` after `done` iterations.

    Only the length of the last stage may differ, and further stages may follow.
    """
    last = len(old) - 1
    begun = done - sum(stage["iters"] for stage in old[:last])
    return (
        old[:last] == new[:last]
        and len(new) > last
        and {**old[last], "iters": 0} == {**new[last], "iters": 0}
        and (old[last]["iters"] == new[last]["iters"] or new[last]["iters"] >= begun)
    )


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the key paths and values of nested mappings and lists."""
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in items:
            yield from _flat(each, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _shown(options: Mapping[str, Any], key: str) -> str:
    return json.dumps(options[key]) if key in options else "not given"
