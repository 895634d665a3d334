"""Optimization steps with a non-finite loss or gradient: counted, and aborting after N in a row."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from basicsr.data import TrainingBatch
from basicsr.utils.distributed import World
from basicsr.utils.errors import UserError
from basicsr.utils.files import atomic_write

logger = logging.getLogger(__name__)


class _Step(NamedTuple):
    iteration: int
    finite: Tensor
    batches: Sequence[TrainingBatch]


class NonFiniteSteps:
    """Counter of skipped steps.

    Whether a step was finite is known on the device first. `note` keeps that flag, with the batches
    of the step, until `read` reads all of them at once. The counts are those after the last `read`.

    Args:
        folder: the run's folder, to save a batch in.
        world: the processes of the run.
        limit: number of skipped steps in a row that aborts the run.
    """

    def __init__(self, folder: Path, world: World, limit: int) -> None:
        self.folder, self.world, self.limit = folder, world, limit
        self.total = 0
        self.in_a_row = 0
        self._unread: list[_Step] = []

    def note(self, iteration: int, finite: Tensor, batches: Sequence[TrainingBatch]) -> None:
        """Note a step and this process's share of its batch, without waiting for the device."""
        self._unread.append(_Step(iteration, finite, batches))

    def read(self) -> None:
        """Count the skipped steps since the last call, waiting for the device.

        Raises:
            UserError: in all processes, if `limit` steps in a row were skipped. The batch of the
                last one of them is saved.
        """
        if not self._unread:
            return
        steps, self._unread = self._unread, []
        flags = torch.stack([step.finite for step in steps]).tolist()
        for step, finite in zip(steps, flags, strict=True):
            self._count(step, finite)

    def _count(self, step: _Step, finite: bool) -> None:
        if finite:
            self.in_a_row = 0
            return
        self.total += 1
        self.in_a_row += 1
        if self.world.is_main:
            logger.warning(
                "iteration %d: the loss or a gradient is not finite; step skipped "
                "(%d in a row, %d in all)",
                *(step.iteration, self.in_a_row, self.total),
            )
        if self.in_a_row >= self.limit:
            raise UserError(
                f"iteration {step.iteration}: {self.in_a_row} steps in a row had a non-finite loss "
                f"or gradient; the batch is {self._save(step)}. Resume with a lower lr, "
                "clip_grad_norm or precision fp32, and --force for the change"
            )

    def _save(self, step: _Step) -> str:
        file = self.folder / "nonfinite" / f"{step.iteration:08d}_rank{self.world.rank}.npz"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as content:
                np.savez(
                    content,
                    lq=np.concatenate([batch.lq.numpy() for batch in step.batches]),
                    gt=np.concatenate([batch.gt.numpy() for batch in step.batches]),
                    names=np.array([name for batch in step.batches for name in batch.names]),
                )
        except OSError as error:
            return f"lost ({error})"
        return f"in {file}"

    def counts(self) -> dict[str, int]:
        """Return the counts to log; none as long as no step was skipped."""
        return {"skipped_steps": self.total} if self.total else {}

    def state_dict(self) -> dict[str, int]:
        """Return the counts, for a training state."""
        return {"total": self.total, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue counting from `state_dict`."""
        self.total, self.in_a_row = state["total"], state["in_a_row"]
