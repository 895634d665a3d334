"""Timing on a machine that other processes use too."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping


def interleaved(
    runs: Mapping[str, Callable[[], float]], repeats: int
) -> dict[str, dict[str, float | list[float]]]:
    """Call every run once per round, for `repeats` rounds, and summarise what each returned.

    Interleaving spreads the load of other processes evenly over the runs.

    Returns:
        For each run `median`, `low`, `high`, and `runs`, the list of all values.
    """
    values: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            values[name].append(run())
    return {
        name: {"median": statistics.median(each), "low": min(each), "high": max(each), "runs": each}
        for name, each in values.items()
    }
