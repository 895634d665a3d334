"""Timing that a busy machine does not decide: runs in turns, their median and spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping


def in_turns(
    runs: Mapping[str, Callable[[], float]], repeats: int
) -> dict[str, dict[str, float | list[float]]]:
    """Call every run `repeats` times, one after the other: what each returned, and its median.

    Whatever else the machine does meanwhile then hits all of them alike.
    """
    figures: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            figures[name].append(run())
    return {
        name: {"median": statistics.median(each), "low": min(each), "high": max(each), "runs": each}
        for name, each in figures.items()
    }
