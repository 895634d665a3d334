"""Going on with a run: from which state, and whether it is still the same run."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from basicsr.data import ImageSource
from basicsr.models.run_folder import RunFolder, verified_state
from basicsr.options import TrainOptions
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


def state_to_resume(
    options: TrainOptions, identity: Mapping[str, Any], folder: RunFolder, auto: bool, force: bool
) -> dict[str, Any]:
    """The training state to go on from; empty for a new run.

    `identity` is what `run_identity` says of the run that goes on. Raises OptionsError where the
    state's is another one, unless it is `force`d, and where nothing is left to do.
    """
    state = folder.latest_state() if auto else None
    if state is None and options.path.resume_state:
        state = verified_state(Path(options.path.resume_state))
    if state is None:
        return {}
    done = state["iteration"]
    if done >= options.train.total_iter and not state["validation_due"]:
        raise OptionsError(
            f"{options.name}: {done} iterations are done, and train.total_iter is "
            f"{options.train.total_iter}: nothing is left to do"
        )
    changes = list(_changes(state["identity"], identity))
    if changes and not force:
        raise OptionsError(
            f"this is not the run that was interrupted at iteration {done}: {'; '.join(changes)}. "
            "Undo that, or go on all the same with --force"
        )
    for change in changes:
        logger.warning("going on all the same, as --force says: %s", change)
    return state


def run_identity(
    options: TrainOptions, source: ImageSource, val_source: ImageSource | None
) -> dict[str, Any]:
    """What makes a run this run: its options, and its data."""
    data = {"datasets.train": source.fingerprint()}
    if val_source is not None:
        data["datasets.val"] = val_source.fingerprint()
    return {"options": options.model_dump(mode="json"), "data": data}


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Each difference that matters, in words."""
    old, new = (dict(_flat(_open_ended(identity["options"]))) for identity in (before, now))
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


def _open_ended(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options without the length of the last row of patches, which total_iter determines."""
    copy = json.loads(json.dumps(options))
    del copy["datasets"]["train"]["patches"][-1]["iters"]
    return copy


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
