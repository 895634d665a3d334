import numpy as np
import pytest
import torch

from basicsr.data import TrainingBatch
from basicsr.training.nonfinite import NonFiniteSteps
from basicsr.utils.distributed import World
from basicsr.utils.errors import UserError

IMAGES = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
BATCH = TrainingBatch(IMAGES, IMAGES + 1, ["a", "b"])


@pytest.mark.parametrize("read_every", [1, 2, 5])
def test_a_good_step_between_bad_ones_resets_the_count(tmp_path, read_every):
    steps = NonFiniteSteps(tmp_path, World(), 3)
    for iteration, finite in enumerate([False, False, True, False, False], 1):
        steps.note(iteration, torch.tensor(finite), [BATCH])
        if iteration % read_every == 0:
            steps.read()
    steps.read()
    assert steps.counts() == {"skipped_steps": 4}
    assert steps.state_dict() == {"total": 4, "in_a_row": 2}


def test_too_many_in_a_row_end_the_run_and_leave_the_batch(tmp_path):
    steps = NonFiniteSteps(tmp_path, World(), 3)
    steps.load_state_dict({"total": 5, "in_a_row": 2})
    steps.note(9, torch.tensor(False), [BATCH, BATCH])
    with pytest.raises(UserError, match=r"iteration 9: 3 steps in a row .*00000009_rank0.npz"):
        steps.read()
    saved = np.load(tmp_path / "nonfinite" / "00000009_rank0.npz")
    assert saved["lq"].shape == (4, 3, 4, 4)
    assert np.array_equal(saved["gt"][2:], BATCH.gt.numpy())
    assert saved["names"].tolist() == ["a", "b", "a", "b"]


def test_a_late_reading_aborts_at_the_step_that_reached_the_limit(tmp_path):
    """The batches of steps 1 to 6 differ; steps 3 to 5 are the first three bad ones in a row."""
    steps = NonFiniteSteps(tmp_path, World(), 3)
    for iteration, finite in enumerate([False, True, False, False, False, True], 1):
        images = torch.full_like(IMAGES, iteration)
        batch = TrainingBatch(images, images, [str(iteration)])
        steps.note(iteration, torch.tensor(finite), [batch])
    with pytest.raises(UserError, match=r"iteration 5: 3 steps in a row .*00000005_rank0.npz"):
        steps.read()
    assert steps.total == 4
    saved = np.load(tmp_path / "nonfinite" / "00000005_rank0.npz")
    assert saved["names"].tolist() == ["5"]
    assert (saved["lq"] == 5).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_batches_of_any_channels_and_types_are_saved(tmp_path, dtype):
    lq = torch.arange(2 * 6 * 4 * 4).view(2, 6, 4, 4).to(dtype)
    gt = torch.arange(2 * 4 * 4).view(2, 1, 4, 4).to(dtype)
    steps = NonFiniteSteps(tmp_path, World(), 1)
    steps.note(1, torch.tensor(False), [TrainingBatch(lq, gt, ["a", "b"])])
    with pytest.raises(UserError, match="1 steps in a row"):
        steps.read()
    saved = np.load(tmp_path / "nonfinite" / "00000001_rank0.npz")
    for name, images in (("lq", lq), ("gt", gt)):
        assert saved[name].dtype == images.numpy().dtype
        np.testing.assert_array_equal(saved[name], images.numpy())
