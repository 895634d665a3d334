"""Options that may change when a run is resumed."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from basicsr.training.resume import require_same_run
from basicsr.utils.errors import CheckpointError


def identity(**train: Any) -> dict[str, Any]:
    patches = [{"size": 16, "batch_size": 4, "iters": 10}]
    settings = {"mixup": None, "accumulation_steps": 1, **train}
    options = {"datasets": {"train": {"patches": patches}}, "train": settings}
    return {"options": options, "data": {}}


def resume(before: dict[str, Any], now: dict[str, Any]) -> None:
    require_same_run({"iteration": 5, "identity": copy.deepcopy(before)}, now, force=False)


def test_parts_of_a_batch_may_change():
    resume(identity(), identity(accumulation_steps=2))


def test_with_mixup_they_may_not_as_it_mixes_the_patches_of_a_part():
    mixup = {"beta": 1.2, "probability": 0.5}
    resume(identity(mixup=mixup), identity(mixup=mixup))
    with pytest.raises(CheckpointError, match=r"train\.accumulation_steps is 2, was 1"):
        resume(identity(mixup=mixup), identity(mixup=mixup, accumulation_steps=2))


@pytest.mark.parametrize("identity", [{}, {"options": 5, "data": {}}, {"options": {}}])
def test_a_damaged_identity_is_an_error(identity):
    with pytest.raises(CheckpointError, match="the training state is damaged, or of another"):
        require_same_run({"iteration": 5, "identity": identity}, {}, force=True)
