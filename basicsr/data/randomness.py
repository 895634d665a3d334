"""One place where random streams come from, so that no two purposes share one."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

ORDER, PATCH, SAMPLE = range(3)


def generator(purpose: int, *key: int) -> np.random.Generator:
    """A generator that is a function of its arguments alone."""
    return np.random.default_rng([purpose, *key])


@lru_cache(maxsize=2)
def order_of(epoch: int, length: int, seed: int) -> np.ndarray:
    """The permutation of `length` samples in which an epoch visits them, not to be changed."""
    return generator(ORDER, seed, epoch).permutation(length)
