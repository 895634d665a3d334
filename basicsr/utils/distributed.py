"""Distributed runs under torchrun: this process's rank, and collectives over all processes."""

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
    """Rank of this process and number of processes of the run.

    All methods are collective: every process must call them, in the same order. With one process
    they return at once, and torch.distributed is not needed.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes logs, results and checkpoints."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the element-wise sum of `values` over the processes."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def require_same(self, value: Any, what: str) -> None:
        """Raise UserError if `value`, described by `what`, differs between the processes."""
        values = self.gather(value)
        if any(each != values[0] for each in values):
            raise UserError(f"the processes of this run have different values ({values}) of {what}")


_GLOO = re.compile(r"\[\S*/gloo/\S*\] |^Gloo ")  # Gloo raises RuntimeError, known by its text only


@contextmanager
def distributed_world(device: torch.device, timeout: float) -> Iterator[World]:
    """Join the process group that torchrun describes in the environment, if there is one.

    Args:
        device: decides the backend: gloo on a CPU, NCCL on a GPU.
        timeout: seconds after which a collective fails that waits for another process.

    Raises:
        UserError: the connection to another process was lost.
        OptionsError: torchrun is started in a way in which its restarts cannot work.
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
            world.sum([0])  # as below
            raise
        world.sum([0])  # a barrier: torchrun kills the others when the first process exits
        dist.destroy_process_group()
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not _GLOO.search(str(error)):
            raise
        reason = _GLOO.sub("", str(error)).partition(". ")[0]
        raise UserError(
            "lost the connection to another process of this run, which was killed, failed or "
            f"stalled; see torchrun's output for the first one that failed ({reason})"
        ) from None


def require_launched(launcher: str, local_rank: int, command: str) -> None:
    """Raise OptionsError if a distributed run was asked for, but this process is started alone.

    Args:
        launcher: "none", or the launcher of BasicSR's command line: "pytorch" or "slurm".
        local_rank: this process's number on its machine according to the command line.
        command: script and arguments, for the error.
    """
    processes = max(torch.cuda.device_count(), 2)
    torchrun = f"torchrun --standalone --nproc-per-node {processes} {command}"
    if launcher == "slurm":
        raise OptionsError(
            "--launcher slurm: not supported; have srun start one torchrun on each node, which "
            f"starts the processes: torchrun --nnodes ... --rdzv-endpoint HOST:29400 {command}"
        )
    if "WORLD_SIZE" not in os.environ and (launcher == "pytorch" or local_rank > 0):
        asked = "--launcher pytorch" if launcher == "pytorch" else f"--local_rank {local_rank}"
        raise OptionsError(f"{asked}: this process was started alone; start with {torchrun}")
    missing = [name for name in _TORCHRUN if name not in os.environ]
    if "WORLD_SIZE" in os.environ and missing:
        raise OptionsError(
            f"WORLD_SIZE is set, but {', '.join(missing)} not; unset it, or start with {torchrun}"
        )


_TORCHRUN = ("RANK", "MASTER_ADDR", "MASTER_PORT")  # set by torchrun together with WORLD_SIZE


def _require_fresh_stores() -> None:
    """Raise OptionsError if torchrun restarts processes but keeps their rendezvous store.

    Restarted processes would read the addresses of the killed ones (pytorch issue 135712).
    """
    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if kept and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0:
        raise OptionsError(
            "torchrun: --max-restarts needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in the "
            "environment; set it, or restart yourself with --auto_resume"
        )


def was_restarted() -> bool:
    """Return whether torchrun restarted this process after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
