"""CUDA graphs of a network: the kernels of a repeated input size are captured once and replayed."""

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
    """Network that replays a CUDA graph for input sizes that occur repeatedly on a GPU.

    The signature of an input is its shape, type, device and autocast precision. The first input of
    a signature runs as usual; the second one is captured, and later ones replay the graph, so that
    images of many different sizes cost nothing extra. The graphs share one memory pool.

    The network is called directly on other devices, where capturing a graph runs out of memory, and
    for inputs of more than `MOST_PIXELS`, whose kernels take longer than their launches.

    Args:
        network: network in eval mode. Its parameters must keep their storage; their values may
            change.
        limit: number of graphs to keep; the least recently used one is dropped first.
    """

    def __init__(self, network: nn.Module, limit: int = 4) -> None:
        self.network = network
        self.limit = limit
        self.graphs: OrderedDict[Hashable, Replay] = OrderedDict()
        self.calls: Counter[Hashable] = Counter()
        self.pool: Any = None

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        """Return the network's output for an N x C x H x W batch."""
        if not x.is_cuda or x.shape[0] * x.shape[2] * x.shape[3] > MOST_PIXELS:
            return self.network(x)
        signature = (tuple(x.shape), x.dtype, x.device, autocast_type(x.device.type))
        if signature in self.graphs:
            self.graphs.move_to_end(signature)
            return self.graphs[signature](x)
        self.calls[signature] += 1
        if self.calls[signature] == 1:
            return self.network(x)
        if self.pool is None:
            self.pool = torch.cuda.graph_pool_handle()
        if len(self.graphs) == self.limit:
            dropped, _ = self.graphs.popitem(last=False)
            del self.calls[dropped]
        try:
            self.graphs[signature] = capture(self.network, x, self.pool)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            height, width = x.shape[2:]
            logger.info("not enough memory for a CUDA graph of %d x %d pixels", width, height)
            self.graphs[signature] = self.network
        return self.graphs[signature](x)


def capture(network: nn.Module, x: Tensor, pool: Any) -> Replay:
    """Capture `network` in a CUDA graph; return a function for inputs with the signature of `x`."""
    device = x.device
    static_input = torch.empty_like(x)
    static_input.copy_(x)
    precision = autocast_type(device.type)
    with (
        torch.cuda.device(device),
        # A graph keeps addresses, so autocast must not cache the weights that it has cast: they
        # would be freed after this block. Each replay casts them again.
        torch.autocast(device.type, precision, enabled=precision is not None, cache_enabled=False),
    ):
        # Libraries initialise themselves in a first call; that must not be part of the graph.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            network(static_input)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            static_output = network(static_input)

    def replay(batch: Tensor) -> Tensor:
        static_input.copy_(batch)
        graph.replay()
        return static_output.clone()  # the next replay of any graph overwrites it

    return replay


def autocast_type(device_type: str) -> torch.dtype | None:
    """Return the type that autocast computes in, or None outside of autocast."""
    return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None
