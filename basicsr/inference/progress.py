"""Progress bar of `restore`, which may be shared by several processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

from basicsr.inference.jobs import RestoreJob
from basicsr.utils.team import ALONE, Team


class Progress(tqdm):
    """Progress bar over the pixels of all jobs.

    `n` counts the pixels of this process. The main process of a team shows the sum over all.

    Args:
        jobs: all jobs of the team.
        team: processes that share the jobs.
        report: is called with the part of the pixels that this process has restored.
    """

    total: float

    def __init__(
        self,
        jobs: Sequence[RestoreJob],
        team: Team = ALONE,
        report: Callable[[float], None] | None = None,
    ) -> None:
        self.team, self.report, self.shared = team, report, 0
        pixels = sum(job.pixels() for job in jobs) if team.is_main else 0
        hidden = None if team.is_main else True  # None: unless it is a terminal
        super().__init__(total=pixels, unit="px", unit_scale=True, disable=hidden)

    def update(self, pixels: float | None = 1) -> bool | None:
        pixels = round(pixels or 0)
        if self.disable:
            self.n += pixels
        if self.team.size > 1:
            self.shared = self.team.total("pixels", pixels)
        if self.report is not None and self.total:
            self.report(min(self.n / self.total, 1.0))
        return super().update(pixels)

    def skip(self, pixels: int) -> None:
        """Leave pixels out, which keeps the estimate of the remaining time right."""
        if self.team.size > 1:
            self.update(pixels)
        else:
            self.total -= pixels
            self.refresh()

    @property
    def format_dict(self) -> dict[str, Any]:
        facts = super().format_dict
        return {**facts, "n": self.shared, "rate": None} if self.team.size > 1 else facts
