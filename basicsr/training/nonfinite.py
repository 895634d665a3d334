"""Steps whose loss or gradient is no finite number: skipped, counted, and not endured for long."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from basicsr.data import TrainingBatch
from basicsr.utils.distributed import World
from basicsr.utils.errors import UserError
from basicsr.utils.files import atomic_write

logger = logging.getLogger(__name__)


class NonFiniteSteps:
    """Counts the steps that were skipped; after `limit` in a row, saves the batch and raises.

    `state` is what `state()` gave when the run was interrupted.
    """

    def __init__(self, folder: Path, world: World, limit: int, state: Mapping[str, int]) -> None:
        self.folder, self.world, self.limit = folder, world, limit
        self.total = state.get("total", 0)
        self.in_a_row = state.get("in_a_row", 0)

    def note(self, iteration: int, finite: bool, batches: Sequence[TrainingBatch]) -> None:
        """Take note of a step and of this process's part of its batch.

        Raises UserError at the limit, on all processes, with the batch saved.
        """
        if finite:
            self.in_a_row = 0
            return
        self.total += 1
        self.in_a_row += 1
        if self.world.is_main:
            logger.warning(
                "iteration %d: the loss or a gradient is no finite number; step skipped "
                "(%d in a row, %d in all)",
                *(iteration, self.in_a_row, self.total),
            )
        if self.in_a_row >= self.limit:
            raise UserError(
                f"iteration {iteration}: {self.in_a_row} steps in a row had a loss or gradient "
                f"that is no finite number; the batch is {self._save(iteration, batches)}. Resume "
                "with a lower lr, clip_grad_norm or precision fp32, and --force for the change"
            )

    def _save(self, iteration: int, batches: Sequence[TrainingBatch]) -> str:
        file = self.folder / "nonfinite" / f"{iteration:08d}_rank{self.world.rank}.npz"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as content:
                np.savez(
                    content,
                    lq=np.concatenate([batch.lq.numpy() for batch in batches]),
                    gt=np.concatenate([batch.gt.numpy() for batch in batches]),
                    names=np.array([name for batch in batches for name in batch.names]),
                )
        except OSError as error:
            return f"lost ({error})"
        return f"in {file}"

    def counts(self) -> dict[str, int]:
        """For the log: nothing as long as all went well."""
        return {"skipped_steps": self.total} if self.total else {}

    def state(self) -> dict[str, int]:
        """For a training state."""
        return {"total": self.total, "in_a_row": self.in_a_row}
