import numpy as np
import pytest
import torch

from basicsr.data import TrainingBatch
from basicsr.training.nonfinite import NonFiniteSteps
from basicsr.utils.distributed import World
from basicsr.utils.errors import UserError

IMAGES = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
BATCH = TrainingBatch(IMAGES, IMAGES + 1, ["a", "b"])


def test_a_good_step_between_bad_ones_starts_the_count_anew(tmp_path):
    steps = NonFiniteSteps(tmp_path, World(), 3, {})
    for iteration, finite in enumerate([False, False, True, False, False], 1):
        steps.note(iteration, finite, [BATCH])
    assert steps.counts() == {"skipped_steps": 4}
    assert steps.state() == {"total": 4, "in_a_row": 2}


def test_too_many_in_a_row_end_the_run_and_leave_the_batch(tmp_path):
    steps = NonFiniteSteps(tmp_path, World(), 3, {"total": 5, "in_a_row": 2})
    with pytest.raises(UserError, match=r"iteration 9: 3 steps in a row .*00000009_rank0.npz"):
        steps.note(9, False, [BATCH, BATCH])
    saved = np.load(tmp_path / "nonfinite" / "00000009_rank0.npz")
    assert saved["lq"].shape == (4, 3, 4, 4)
    assert np.array_equal(saved["gt"][2:], BATCH.gt.numpy())
    assert saved["names"].tolist() == ["a", "b", "a", "b"]
