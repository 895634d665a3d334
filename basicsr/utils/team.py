"""Processes of torchrun that share a list of work: each item is taken by one of them."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from basicsr.utils.errors import UserError

Item = TypeVar("Item")

LONGEST_WAIT = datetime.timedelta(days=30)


class Team:
    """Processes that share work through the key-value store of torchrun.

    They take items from a counter, which is exact between machines as well; locks in a shared
    folder would not be, as file servers differ in what they guarantee. A process that is killed
    makes torchrun end the others.

    Args:
        rank: number of this process.
        size: number of processes.
        store: a torch.distributed.Store; not needed for one process.
    """

    def __init__(self, rank: int = 0, size: int = 1, store: Any = None) -> None:
        self.rank = rank
        self.size = size
        self._store = store

    @classmethod
    def of_torchrun(cls) -> Team:
        """Return the team that the environment describes: one process without torchrun."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        from torch.distributed import PrefixStore, rendezvous

        with _connection():
            store, rank, size = next(rendezvous("env://"))
            store.set_timeout(LONGEST_WAIT)  # for others to finish their last item
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # restarts begin anew
        return cls(rank, size, PrefixStore(f"team-{attempt}", store))

    @property
    def is_main(self) -> bool:
        """Whether this process finds the work and reports the results."""
        return self.rank == 0

    def take(self, name: str, items: Sequence[Item]) -> Iterator[Item]:
        """Yield the items of the list `name` that no other process has taken, in their order.

        `items` must be the same in all processes.
        """
        if self.size == 1:
            yield from items
            return
        while (position := self.total(name, 1)) <= len(items):
            yield items[position - 1]

    def wait(self, name: str) -> None:
        """Return when all processes have called it with this `name`."""
        if self.size == 1:
            return
        with _connection():
            if self._store.add(f"wait-{name}", 1) == self.size:
                self._store.set(f"all-{name}", "")
            self._store.get(f"all-{name}")

    def total(self, name: str, amount: int) -> int:
        """Add `amount` to the counter `name`; return the sum over all processes so far."""
        with _connection():
            return self._store.add(f"count-{name}", amount)

    def from_main(self, name: str, value: Any) -> Any:
        """Return the main process's `value`, which JSON can hold, in every process."""
        if self.size == 1:
            return value
        with _connection():
            if self.is_main:
                self._store.set(f"main-{name}", json.dumps(value))
            return json.loads(self._store.get(f"main-{name}"))

    def to_main(self, name: str, value: Any) -> list[Any]:
        """Return the values of all processes in the main one; the others get an empty list.

        The main process waits for the others, which go on at once.
        """
        if self.size == 1:
            return [value]
        with _connection():
            if not self.is_main:
                self._store.set(f"value-{name}-{self.rank}", json.dumps(value))
                return []
            others = [f"value-{name}-{rank}" for rank in range(1, self.size)]
            return [value, *(json.loads(self._store.get(key)) for key in others)]


ALONE = Team()
"""Team of this process only."""


@contextmanager
def _connection() -> Iterator[None]:
    """Turn a lost connection into a UserError."""
    from torch.distributed import DistError

    try:
        yield
    except DistError as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            "lost the connection to another process of this run, which was killed or failed; "
            f"start the same command again ({reason})"
        ) from None
