"""Which weights a task has."""

from __future__ import annotations

import pytest

from basicsr.inference.tasks import TASKS, TaskWeights, shipped_for
from basicsr.models.pretrained import shipped_weights
from basicsr.utils.errors import CheckpointError


def test_shipped_weights_are_preferred_and_gray_ones_optional():
    assert shipped_for("derain", ["DTPNet-T_any-rain", "other"]).names() == ["DTPNet-T_any-rain"]
    both = ["DTPNet-T_gray_blind", "DTPNet-T_color_blind"]
    assert shipped_for("denoise", both).names() == ["DTPNet-T_color_blind", "DTPNet-T_gray_blind"]
    assert shipped_for("denoise", both[1:]).names() == ["DTPNet-T_color_blind"]
    assert shipped_for("derain", shipped_weights()).rgb == "DTPNet-T_any-rain"


@pytest.mark.parametrize("task", sorted(TASKS))
def test_what_is_not_shipped_is_published_elsewhere(task):
    with pytest.raises(CheckpointError) as error:
        shipped_for(task, [])
    file = TASKS[task].published
    assert str(error.value) == (
        f"--task {task}: no weights are shipped; download {file} of Restormer's authors from "
        "https://github.com/swz30/Restormer/releases/tag/v1.0, and give "
        f"--weights {file} --type Restormer"
    )
    assert TaskWeights(published=file).names() == []
