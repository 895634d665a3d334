"""One process or several of `torchrun`: who this one is, and what the processes tell each other."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from basicsr.utils.errors import OptionsError, Stopped, UserError


@dataclass(frozen=True)
class World:
    """This process among the `size` processes of a run. A world of one needs no torch.distributed.

    All methods but `is_main` are collective: every process calls them, in the same order.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes logs, results and checkpoints."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """The element-wise sum over the processes."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, by rank, on every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def require_same(self, value: Any, what: str) -> None:
        """Raise UserError where the processes have found different values of `what`."""
        found = self.gather(value)
        if any(each != found[0] for each in found):
            raise UserError(
                f"the processes of this run have found different values ({found}) of {what}"
            )


_GLOO = re.compile(r"\[\S*/gloo/\S*\] |^Gloo ")  # its errors have no class of their own


@contextmanager
def distributed_world(device: torch.device, timeout: float) -> Iterator[World]:
    """The world that `torchrun` describes in the environment, or a world of one.

    A collective that waits longer than `timeout` seconds fails. Raises UserError where another
    process was lost, OptionsError where torchrun could not restart the run.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    world = World(int(os.environ["RANK"]), size)
    _require_fresh_stores()
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=datetime.timedelta(seconds=timeout))
        try:
            yield world
        except Stopped:
            world.sum([0])
            raise
        world.sum([0])  # wait for all: torchrun ends the others when the first has gone
        dist.destroy_process_group()
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not _GLOO.search(str(error)):
            raise
        reason = _GLOO.sub("", str(error)).partition(". ")[0]
        raise UserError(
            "lost the connection to another process of this run, which was killed, failed or "
            f"stalled: torchrun names the first that failed ({reason})"
        ) from None


def _require_fresh_stores() -> None:
    """With restarts, torchrun must not keep the store in which processes find each other.

    They would read the addresses of those that were killed (pytorch issue 135712).
    """
    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if kept and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0:
        raise OptionsError(
            "torchrun --max-restarts works only with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its "
            "environment; set it, or restart by --auto_resume yourself"
        )


def was_restarted() -> bool:
    """Whether torchrun started this process again after one of the run failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
