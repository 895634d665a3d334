"""What a kind of input defines, and mutations of bytes and of values that several kinds use."""

from __future__ import annotations

import copy
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Values at the borders of ranges and types.
ODD_VALUES: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 7, 255, 256, 1000, 4096, 2**31, 2**32, 2**63, 2**64, 10**30, -(2**63)),
    *(0.0, -0.0, 0.5, 1.5, 1e-300, 1e300, -1e300, float("inf"), float("nan")),
    *("", " ", "a", "a" * 1000, "\u6570\u636e", "../..", "/", "~", "$HOME", "1e5", "a\x00b", "{}"),
    *(True, False, None, [], {}, [[]], [{}], {"type": {}}, {"type": {"type": {}}}, {"": None}),
    *([0], [-1], [1e300], ["a"], [None], [1, 2, 3, 4, 5, 6, 7, 8], {"type": "DTPNet"}),
)


class Target(ABC):
    """A kind of input: how one is made, and how the project reads it."""

    name: str

    @abstractmethod
    def make(self, rng: random.Random, folder: Path) -> Path:
        """Write a mutated valid input into the empty `folder`, and return its path."""

    @abstractmethod
    def read(self, path: Path, rng: random.Random) -> None:
        """Read the input as the commands do. Raises UserError if they would refuse it."""


def mutated_bytes(data: bytes, rng: random.Random, tokens: tuple[bytes, ...] = ()) -> bytes:
    """Return `data` with one to four changes: flips, cuts, copies, insertions, or a shorter end."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not changed:
            break
        place = rng.randrange(len(changed))
        length = min(rng.choice((1, 1, 2, 4, 16, 256)), len(changed) - place)
        change = rng.randrange(7)
        if change == 0:
            changed[place] ^= 1 << rng.randrange(8)
        elif change == 1:
            changed[place : place + length] = rng.randbytes(length)
        elif change == 2:
            del changed[place : place + length]
        elif change == 3:
            changed[place:place] = changed[place : place + length]
        elif change == 4:
            fill = rng.choice((b"\x00", b"\xff", b"\x7f", b"\x80"))
            changed[place : place + length] = fill * length
        elif change == 5 and tokens:
            changed[place:place] = rng.choice(tokens)
        else:
            del changed[place if rng.random() < 0.3 else len(changed) - length :]
    return bytes(changed)


def mutated_tree(tree: Any, rng: random.Random, others: tuple[Any, ...] = ODD_VALUES) -> Any:
    """Return a copy of nested dicts and lists with one to three values changed.

    A value is replaced by one of `others` or by another value of the tree, removed, or repeated.
    """
    tree = copy.deepcopy(tree)
    for _ in range(rng.randint(1, 3)):
        places = list(_places(tree))
        if not places:
            break
        parent, key = rng.choice(places)
        change = rng.random()
        if change < 0.6:
            parent[key] = copy.deepcopy(rng.choice(others))
        elif change < 0.75:
            other, other_key = rng.choice(places)
            parent[key] = copy.deepcopy(other[other_key])
        elif change < 0.9:
            del parent[key]
        elif isinstance(parent, dict):
            parent[rng.choice((f"{key}x", str(key)[:-1], 5, "", "type"))] = parent[key]
        else:
            parent.extend(copy.deepcopy(parent) * rng.choice((1, 20)))
    return tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Return the containers in `tree` with each of their keys."""
    found: list[tuple[Any, Any]] = []
    pending = [tree]
    while pending:
        here = pending.pop()
        if isinstance(here, dict | list):
            keys: list[Any] = list(here) if isinstance(here, dict) else list(range(len(here)))
            found.extend((here, key) for key in keys)
            pending.extend(here[key] for key in keys)
    return found


def pick(rng: random.Random, *choices: Callable[[], Any]) -> Any:
    """Return the result of one of the functions."""
    return rng.choice(choices)()
