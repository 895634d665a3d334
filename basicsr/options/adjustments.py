"""Which kind of file an option file is, and a patch schedule that follows `train:total_iter`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from basicsr.utils.errors import OptionsError

_LENGTHS = re.compile(r"datasets(:train(:patches(:\d+(:iters)?)?)?)?")
"""Assignments that give the lengths of the stages."""


def require_kind(raw: Mapping[str, Any], training: bool) -> None:
    """Raise OptionsError if a training file is given to test.py, or a test file to train.py.

    Args:
        raw: content of the file, of this project or of BasicSR.
        training: whether it is to be trained.
    """
    sets = raw.get("datasets")
    # MPRNet's training.yml has sections in capitals
    is_training = bool({"train", "TRAINING"} & raw.keys())
    is_training = is_training or (isinstance(sets, dict) and "train" in sets)
    if is_training and not training:
        raise OptionsError(
            "this is a training file; train it with basicsr/train.py -opt FILE, and test the "
            "weights with a file like those in options/test"
        )
    if training and not is_training and isinstance(sets, dict) and sets:
        raise OptionsError(
            "this is a test file, it has no section 'train'; run it with basicsr/test.py -opt FILE"
        )


def follow_total_iter(raw: Mapping[str, Any], force: Sequence[str]) -> list[str]:
    """Adapt the patch schedule in place where `--force_yml` sets `train:total_iter` alone.

    The last stage gets longer, or stages are cut, as Restormer's last stage lasts to the end of
    training.

    Args:
        raw: content of an option file of this project, with the assignments made.
        force: the assignments.

    Returns:
        A line that says what has changed, or none.
    """
    keys = {assignment.partition("=")[0] for assignment in force}
    if "train:total_iter" not in keys or any(map(_LENGTHS.fullmatch, keys)):
        return []
    try:
        total, stages = raw["train"]["total_iter"], raw["datasets"]["train"]["patches"]
        lengths = [stage["iters"] for stage in stages]
    except (KeyError, TypeError):  # reported with all other errors
        return []
    if not all(type(number) is int and number > 0 for number in (total, *lengths)):
        return []
    if total == sum(lengths):
        return []
    left, kept = total, []
    for stage in stages:
        if left > 0:
            kept.append({**stage, "iters": min(left, stage["iters"])})
            left -= stage["iters"]
    kept[-1]["iters"] += max(left, 0)
    raw["datasets"]["train"]["patches"] = kept
    text = ", ".join(f"{stage['iters']} of size {stage.get('size')}" for stage in kept)
    return [
        f"train.total_iter: {total} instead of {sum(lengths)} iterations; patches: {text}; "
        "the scheduler stays as it is"
    ]
