"""The settings of the restoring process, its requests and its answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


@dataclass(frozen=True)
class WorkerSettings:
    """Settings of the restoring process.

    Args:
        folder: folder of the page, which is removed if the page was killed.
        device: "auto", "cuda" or "cpu".
        precision: "fp32" or "bf16".
        memory_gib: on a CPU, memory that the process may allocate beside that of the libraries; on
            a GPU, budget for tensors. None for half of the free memory, and for all of a GPU's.
    """

    folder: Path
    device: str = "auto"
    precision: str = "fp32"
    memory_gib: float | None = None


SMALLEST_PART = 0.01
"""Part of a photograph that must be restored before the time left is estimated."""


class Request(NamedTuple):
    """Photograph to restore into the folder `out`.

    `weights` is one file of weights, or one for RGB and one for gray photographs.
    """

    source: Path
    weights: tuple[Path, ...]
    out: Path


class Step(NamedTuple):
    """Progress within a photograph: elapsed seconds, and the part that is restored."""

    seconds: float
    part: float

    @property
    def time_left(self) -> str:
        """Estimate of the time left in words, "" before there is one."""
        if self.part < SMALLEST_PART:
            return ""
        left = self.seconds * (1 - self.part) / self.part
        return f"about {left:.0f} s left" if left < 90 else f"about {left / 60:.0f} min left"


class Restored(NamedTuple):
    """Restored file, 8-bit previews of both versions, and what restoring took."""

    file: Path
    before: Path
    after: Path
    height: int
    width: int
    seconds: float
    memory_gib: float
