"""Progress of networks that are computed in strips."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

Report = Callable[[int, float], None]
"""Called after each strip with the number of strips so far, and the part of the work done."""
_report: ContextVar[Report | None] = ContextVar("report", default=None)


@contextlib.contextmanager
def progress_to(report: Report) -> Iterator[None]:
    """Report the progress of networks that are computed in strips within this context."""
    token = _report.set(report)
    try:
        yield
    finally:
        _report.reset(token)


class StripProgress:
    """Progress of one forward pass, reported to the current `progress_to`.

    The costs of the operations are those of an earlier pass on an image of any size.

    Attributes:
        costs: values that each operation of this pass reads and writes.
    """

    def __init__(self, earlier: StripProgress | None = None) -> None:
        self.costs: dict[int, int] = {}
        self._expected = {} if earlier is None else earlier.costs
        self._total = sum(self._expected.values())
        self._report = _report.get() if self._total else None
        self._strips, self._done = 0, 0.0

    def add_strip(self, operation: int, part: float, values: int) -> None:
        """Count a strip: its part of the operation, and the values that it reads and writes."""
        self.costs[operation] = self.costs.get(operation, 0) + values
        self._strips += 1
        if self._report is not None:
            self._done += part * self._expected.get(operation, 0)
            self._report(self._strips, min(self._done / self._total, 1.0))
