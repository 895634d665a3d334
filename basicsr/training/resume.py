"""Going on with a run: from which state, and whether it is still the same run."""

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
from basicsr.utils.errors import OptionsError

logger = logging.getLogger(__name__)

MAY_CHANGE = (
    "name",
    "device",
    "path.*",
    "logger.*",
    "datasets.*.name",
    "datasets.*.dataroot*",  # what is in them is compared by its fingerprint
    "datasets.*.cache*",
    "datasets.train.num_worker_per_gpu",
    "datasets.train.*bad_image*",
    "datasets.train.patches.*",  # compared apart
    "train.total_iter",
    "train.accumulation_steps",
    "train.sharded",
    "train.compile",
    "train.nonfinite_limit",
    "train.stall_timeout",
    "val.val_freq",
    "val.save_img",
)
"""Options that a resumed run may have otherwise; they do not change what is learnt from what."""


class Resumed(NamedTuple):
    """The training state to go on from, empty for a new run, and whether it is of this folder."""

    state: dict[str, Any]
    own: bool


def state_to_resume(options: TrainOptions, folder: RunFolder, auto: bool) -> Resumed:
    """The newest state of `folder` if that is wanted and there is one, else path.resume_state."""
    state = folder.latest_state() if auto else None
    if state is not None:
        return Resumed(state, True)
    if options.path.resume_state is None:
        return Resumed({}, False)
    file = Path(options.path.resume_state)
    return Resumed(verified_state(file), file.resolve().parent.parent == folder.path.resolve())


def require_same_run(state: Mapping[str, Any], identity: Mapping[str, Any], force: bool) -> None:
    """Raise OptionsError where `state` is not of the run with that `identity`, unless `force`d."""
    done = state["iteration"]
    changes = list(_changes(state["identity"], identity, done))
    if changes and not force:
        raise OptionsError(
            f"this is not the run that was interrupted at iteration {done}: {'; '.join(changes)}. "
            "Undo that, or go on all the same, as far as the weights fit, with --force"
        )
    for change in changes:
        logger.warning("going on all the same, as --force says: %s", change)


def run_identity(
    options: TrainOptions, source: RestorationDataset, val_source: RestorationDataset | None
) -> dict[str, Any]:
    """What makes a run this run: its options, and its data."""
    data = {"datasets.train": source.fingerprint()}
    if val_source is not None:
        data["datasets.val"] = val_source.fingerprint()
    return {"options": options.model_dump(mode="json"), "data": data}


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], done: int) -> Iterator[str]:
    """Each difference that matters after `done` iterations, in words."""
    were, are = (each["options"]["datasets"]["train"]["patches"] for each in (before, now))
    if not _continues(were, are, done):
        yield f"datasets.train.patches are {json.dumps(are)}, were {json.dumps(were)}"
    old, new = (dict(_flat(identity["options"])) for identity in (before, now))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key) and not any(fnmatchcase(key, each) for each in MAY_CHANGE):
            yield f"{key} is {_shown(new, key)}, was {_shown(old, key)}"
    for key in before["data"].keys() & now["data"].keys():
        was, is_ = before["data"][key], now["data"][key]
        if was != is_:
            yield (
                f"{key}: the images are others than before ({is_['images']}, were {was['images']})"
                if is_["images"] != was["images"]
                else f"{key}: of the {is_['images']} images some have changed"
            )


def _continues(old: list[dict], new: list[dict], done: int) -> bool:
    """Whether patches are the same but for how long the last row is, and what follows it."""
    last = len(old) - 1
    begun = done - sum(row["iters"] for row in old[:last])
    return (
        old[:last] == new[:last]
        and len(new) > last
        and {**old[last], "iters": 0} == {**new[last], "iters": 0}
        and (old[last]["iters"] == new[last]["iters"] or new[last]["iters"] >= begun)
    )


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Key paths and values of nested mappings and lists."""
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in items:
            yield from _flat(each, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _shown(options: Mapping[str, Any], key: str) -> str:
    return json.dumps(options[key]) if key in options else "not given"
