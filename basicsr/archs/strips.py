"""Networks on images of any size: feature maps are computed and stored by strips of rows.

`forward_in_strips` gives the result of `network(x)` within a memory budget. The network runs on
`StripMap`s in place of tensors:

- Functions that look at a neighbourhood of each pixel are marked `row_local`. They are computed
  strip by strip, each strip with the rows above and below that it needs.
- Functions that look at the whole image must be sums over its pixels, as the Gram matrix of a
  transposed attention is; `strip_sums` gives the terms of the sum.

Networks do not say which feature maps they still need. A run on a small image records the last
operation that reads each map. In later runs, this operation writes its result over the map, or
frees it. A second run on the small image shows whether the memory is enough for the image itself.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast

from torch import Tensor

from basicsr.archs.strip_progress import StripProgress
from basicsr.archs.strip_storage import STEP, FeatureStorage, MemoryBudget, RowStorage, TrialBudget

SMALL_SIDE = 8  # pixels; enough to see which operation reads a map last, and to add up memory


class Network(Protocol):
    """The part of `RestorationNetwork` that is used here."""

    def __call__(self, x: Any, all_stages: bool = False) -> Any: ...
    def fitting_side(self, side: int) -> int: ...


def forward_in_strips(
    network: Network, x: Tensor, memory: float, features: FeatureStorage = "memory"
) -> Tensor:
    """Return `network(x)`, computed in strips.

    Args:
        network: supports strips.
        x: N x C x H x W images.
        memory: bytes for feature maps and computing together.
        features: where feature maps are stored; see MemoryBudget.

    Raises:
        OptionsError: The memory is too small even for the smallest strips.
    """
    return run_in_strips(network, x, MemoryBudget(memory, features)).whole()


def run_in_strips(
    network: Network, x: Tensor, budget: MemoryBudget, all_stages: bool = False
) -> Any:
    """Return the `StripMap` of `network(x)`, or the list of those of all its stages.

    Raises:
        OptionsError: The memory is too small even for the smallest strips.
    """
    side = network.fitting_side(SMALL_SIDE)
    small, recording = x.new_zeros(*x.shape[:2], side, side), Run()
    unlimited = MemoryBudget(float("inf"))
    outputs = network(StripMap.from_tensor(small, unlimited, recording), all_stages)
    for output in outputs if isinstance(outputs, list) else [outputs]:
        recording.reads.pop(output.number, None)  # the caller reads it after the last operation
    trial = TrialBudget(budget.features, x.shape[3] / side, x.numel() / small.numel())
    network(StripMap.from_tensor(small, trial, Run(recording.reads)), all_stages)
    budget.require(trial.least)
    budget.reserved = trial.strip
    run = Run(recording.reads, StripProgress(recording.progress))
    return network(StripMap.from_tensor(x, budget, run), all_stages)


class Run:
    """Numbering of the maps and operations of one forward pass.

    Both are numbered in the order of their creation, which does not depend on the image's size.

    Args:
        last_reads: the last operation that reads a map, for maps that are not needed after it.
        progress: counts the strips.
    """

    def __init__(
        self, last_reads: Mapping[int, int] | None = None, progress: StripProgress | None = None
    ) -> None:
        self.last_reads = last_reads or {}
        self.progress = progress or StripProgress()
        self.reads: dict[int, int] = {}  # map -> the last operation so far that reads it
        self.maps = self.operations = 0

    def add_map(self) -> int:
        self.maps += 1
        return self.maps

    def begin_operation(self, inputs: Sequence[StripMap]) -> list[StripMap]:
        """Count an operation that reads `inputs`, and return those that no later one reads."""
        self.operations += 1
        self.reads.update((x.number, self.operations) for x in inputs)
        return [x for x in inputs if self.last_reads.get(x.number) == self.operations]


class StripMap:
    """N x C x H x W feature map of a run in strips, which is read by rows."""

    def __init__(self, storage: RowStorage, run: Run) -> None:
        self.shape, self.run, self.number = storage.shape, run, run.add_map()
        self._storage: RowStorage | None = storage

    @classmethod
    def from_tensor(cls, image: Tensor, budget: MemoryBudget, run: Run | None = None) -> StripMap:
        storage = RowStorage(image.shape, image, budget)
        storage.write(0, image)
        return cls(storage, run or Run())

    @property
    def storage(self) -> RowStorage:
        if self._storage is None:
            raise RuntimeError(
                "a feature map is read after its last use; in strips, the order of a network's "
                "operations must not depend on the image"
            )
        return self._storage

    def release(self) -> None:
        """Let go of the storage. The map cannot be read any more."""
        self._storage = None

    def read(self, top: int, bottom: int) -> Tensor:
        return self.storage.read(top, bottom)

    def whole(self) -> Tensor:
        return self.read(0, self.shape[2])


Span = tuple[int, int]  # a strip's first row, and the row below its last


def strip_sums(function: Callable[[Tensor, slice], Any], x: StripMap, halo: int) -> Iterator[Any]:
    """Yield `function(strip, rows)` for every strip of `x`.

    Args:
        function: returns a tensor or a tuple of tensors, computed from some rows of a strip. The
            strip has `halo` rows above and below them, except at the image's border.
        x: feature map.
        halo: receptive-field radius of `function`, in rows.
    """
    unused = _begin_operation([x])
    for _, sums in _strips(function, x, halo=halo, summed=True):
        yield sums
    for each in unused:
        each.release()


Function = TypeVar("Function", bound=Callable[..., Any])


def row_local(halo: int) -> Callable[[Function], Function]:
    """Mark functions whose results depend on rows at most `halo` away, counted in the first map.

    Their tensors are N x C x H x W, with heights that are equal or multiples of each other. If an
    argument is a `StripMap`, the function is computed in strips and its results are `StripMap`s.
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def call(*inputs: Any) -> Any:
            if any(isinstance(x, StripMap) for x in inputs):
                return _map_in_strips(function, *inputs, halo=halo)
            return function(*inputs)

        return cast(Function, call)

    return decorate


def _begin_operation(inputs: Sequence[Any]) -> list[StripMap]:
    maps = [x for x in inputs if isinstance(x, StripMap)]
    return maps[0].run.begin_operation(maps)


def _strips(
    function: Callable[..., Any], *inputs: Any, halo: int, summed: bool = False
) -> Iterator[tuple[Span, Any]]:
    """Yield the span of each strip in the first map, and what `function` returns for it.

    `function` is called with the inputs, strips in place of maps, and the strip's own rows. With
    `summed`, it returns sums over rows, whose size does not depend on their number.
    """
    first_map = next(x for x in inputs if isinstance(x, StripMap))
    height, budget = first_map.shape[2], first_map.storage.budget
    progress, operation = first_map.run.progress, first_map.run.operations
    top, rows = 0, STEP  # the first strip is small and shows how large the results are
    while top < height:
        bottom = min(top + rows, height)
        first, last = max(0, top - halo), min(bottom + halo, height)
        arguments = [_rows_of(x, first, last, height) for x in inputs]
        results = function(*arguments, slice(top - first, bottom - first))
        if top == 0:
            pairs = zip(arguments, inputs, strict=True)
            row_values, row_bytes = _per_row([y for y, x in pairs if isinstance(x, StripMap)], last)
            if not summed:
                values_written, bytes_written = _per_row(_as_tuple(results), bottom)
                row_values += values_written
                row_bytes += bytes_written
        yield (top, bottom), results
        del arguments, results  # before the next strip is read
        progress.add_strip(operation, (bottom - top) / height, (bottom - top) * row_values)
        top = bottom
        # after the last strip too: in a trial run there is only one
        rows = budget.strip_height(row_bytes, halo, height)


def _per_row(tensors: Sequence[Tensor], rows: int) -> tuple[int, int]:
    """Return the values and the bytes of a row of all tensors.

    Their strips are as high as `rows` of the map.
    """
    return sum(x.numel() for x in tensors) // rows, sum(x.nbytes for x in tensors) // rows


def _as_tuple(results: Any) -> tuple[Tensor, ...]:
    return results if isinstance(results, tuple) else (results,)


def _rows_of(x: Any, first: int, last: int, height: int) -> Any:
    """Return the rows of `x` that are rows [first, last) of a map of that `height`."""
    if not isinstance(x, StripMap):
        return x
    return x.read(first * x.shape[2] // height, last * x.shape[2] // height)


def _without_halo(y: Tensor, rows: slice, height: int) -> Tensor:
    """Return the part of `y` that belongs to some `rows` of its strip.

    Args:
        y: computed from the strip, and as high, or higher or lower by a whole factor.
        rows: rows of the strip.
        height: rows of the strip in all.
    """
    return y[:, :, rows.start * y.shape[2] // height : rows.stop * y.shape[2] // height]


def _map_in_strips(function: Callable[..., Any], *inputs: Any, halo: int) -> Any:
    first_map = next(x for x in inputs if isinstance(x, StripMap))
    height, budget = first_map.shape[2], first_map.storage.budget
    unused = _begin_operation(inputs)
    free = [x.storage for x in unused]
    outputs: list[RowStorage] = []
    waiting: deque[tuple[int, int, tuple[Tensor, ...]]] = deque()

    def own_rows(*arguments: Any) -> Any:
        *tensors, rows = arguments
        strip = next(t for t, x in zip(tensors, inputs, strict=True) if isinstance(x, StripMap))
        results = function(*tensors)
        inner = tuple(_without_halo(y, rows, strip.shape[2]) for y in _as_tuple(results))
        return inner if isinstance(results, tuple) else inner[0]

    def write_first() -> None:
        top, _, values = waiting.popleft()
        for storage, y in zip(outputs, values, strict=True):
            storage.write(top * storage.shape[2] // height, y)

    for (top, bottom), results in _strips(own_rows, *inputs, halo=halo):
        waiting.append((top, bottom, _as_tuple(results)))
        if not outputs:
            candidates = len(free)
            outputs = [
                _output_storage(y, height / bottom, free, budget) for y in _as_tuple(results)
            ]
            # rows of an overwritten input that the next strip reads must wait
            still_read = halo if len(free) < candidates else 0
        while waiting and waiting[0][1] <= bottom - still_read:
            write_first()
    while waiting:
        write_first()
    for x in unused:
        x.release()
    maps = tuple(StripMap(storage, first_map.run) for storage in outputs)
    return maps if isinstance(results, tuple) else maps[0]


def _output_storage(
    y: Tensor, heights: float, free: list[RowStorage], budget: MemoryBudget
) -> RowStorage:
    """Return storage for a map that is `heights` times as high as `y`.

    It is taken from `free`, inputs that may be written over, if there is one of the same shape.
    """
    n, c, h, w = y.shape
    shape = (n, c, round(h * heights), w)
    for storage in free:
        if storage.shape == shape and storage.dtype == y.dtype:
            free.remove(storage)
            return storage
    return RowStorage(shape, y, budget)
