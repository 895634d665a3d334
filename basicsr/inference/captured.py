"""Replaying a network's kernels on a GPU, instead of launching each of them again."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn

from basicsr.utils.devices import is_out_of_memory

logger = logging.getLogger("basicsr")

Replay = Callable[[Tensor], Tensor]

MOST_PIXELS = 2**20


class CapturedNetwork:
    """Calls `network`, on a GPU by a CUDA graph for each kind of image that comes repeatedly.

    A kind is a shape, a type and a precision of autocast. The first image of a kind is computed as
    ever; the second one's kernels are captured while they run, and replayed from then on. So
    images that all differ cost nothing more. The `limit` kinds that were used last are kept; their
    graphs share memory. Calls are plain for images of over `MOST_PIXELS`, whose kernels take longer
    than their launches, where a graph finds no memory, and on other devices.

    For networks in eval mode, whose weights keep their places (their values may change).
    """

    def __init__(self, network: nn.Module, limit: int = 4) -> None:
        self.network = network
        self.limit = limit
        self.graphs: OrderedDict[Hashable, Replay] = OrderedDict()
        self.seen: Counter[Hashable] = Counter()
        self.pool: Any = None

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        """The network's result for an N x C x H x W batch."""
        if not x.is_cuda or x.shape[0] * x.shape[2] * x.shape[3] > MOST_PIXELS:
            return self.network(x)
        kind = (tuple(x.shape), x.dtype, x.device, autocast_type(x.device.type))
        if kind in self.graphs:
            self.graphs.move_to_end(kind)
            return self.graphs[kind](x)
        self.seen[kind] += 1
        if self.seen[kind] == 1:
            return self.network(x)
        if self.pool is None:
            self.pool = torch.cuda.graph_pool_handle()
        if len(self.graphs) == self.limit:
            forgotten, _ = self.graphs.popitem(last=False)
            del self.seen[forgotten]
        try:
            self.graphs[kind] = capture(self.network, x, self.pool)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            logger.info("no memory to capture images of %s x %s", *reversed(x.shape[2:]))
            self.graphs[kind] = self.network
        return self.graphs[kind](x)


def capture(network: nn.Module, x: Tensor, pool: Any) -> Replay:
    """A function that does what `network` does to `x` to any batch of its kind.

    A graph keeps addresses. So autocast may not keep weights that it has cast for longer than the
    graph's own run: each replay casts them again.
    """
    device = x.device
    kept = torch.empty_like(x)
    kept.copy_(x)
    precision = autocast_type(device.type)
    with (
        torch.cuda.device(device),
        torch.autocast(device.type, precision, enabled=precision is not None, cache_enabled=False),
    ):
        # what libraries set up at their first calls must not be part of the graph
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            network(kept)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            result = network(kept)

    def replay(batch: Tensor) -> Tensor:
        kept.copy_(batch)
        graph.replay()
        return result.clone()  # the next replay of any graph writes over it

    return replay


def autocast_type(device_type: str) -> torch.dtype | None:
    return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None
