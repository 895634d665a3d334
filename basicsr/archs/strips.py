"""Networks on images of any size: feature maps are computed and stored by strips of rows.

`forward_in_strips` gives the result of `network(x)` within a memory budget. The network runs on
`StripMap`s in place of tensors:

- Functions that look at a neighbourhood of each pixel are marked `row_local`. They are computed
  strip by strip, each strip with the rows above and below that it needs.
- Functions that look at the whole image must be sums over its pixels, as the Gram matrix of a
  transposed attention is; `strip_sums` gives the terms of the sum.

Networks do not say which feature maps they still need. A run on a small image records the last
operation that reads each map. In the run on the image itself, this operation writes its result over
the map, or frees it.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar, cast

import torch
from einops import rearrange
from torch import Tensor

from basicsr.archs.strip_progress import StripProgress
from basicsr.utils.devices import release_freed_memory
from basicsr.utils.errors import OptionsError, remedy

FeatureStorage = Literal["memory", "bf16", "disk"]

STEP = 8  # strips begin at multiples of it, and so at whole rows of every scale
IMAGE_CHANNELS = 6  # maps with at most this many channels are images, which are not rounded
WORKING_SETS = 10  # memory for computing a strip, in multiples of its inputs and outputs
SMALL_SIDE = 8  # pixels; enough to record which operation reads a map last


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
        OptionsError: The memory is too small even for the lowest strips.
    """
    return run_in_strips(network, x, MemoryBudget(memory, features)).whole()


def run_in_strips(
    network: Network, x: Tensor, budget: MemoryBudget, all_stages: bool = False
) -> Any:
    """Return the `StripMap` of `network(x)`, or the list of those of all its stages."""
    # Record, on a small image, which operation reads each map last.
    side = network.fitting_side(SMALL_SIDE)
    small, recording = x.new_zeros(1, x.shape[1], side, side), Run()
    unlimited = MemoryBudget(float("inf"))
    outputs = network(StripMap.from_tensor(small, unlimited, recording), all_stages)
    for output in outputs if isinstance(outputs, list) else [outputs]:
        recording.reads.pop(output.number, None)  # the caller reads it after the last operation
    run = Run(recording.reads, StripProgress(recording.progress))
    return network(StripMap.from_tensor(x, budget, run), all_stages)


class MemoryBudget:
    """Memory that a run in strips may use, and where it stores feature maps.

    Args:
        memory: bytes for feature maps and computing together.
        features: "memory", "bf16" (rounded, in half the memory) or "disk" (in unnamed temporary
            files, once maps take half of the memory).
    """

    def __init__(self, memory: float, features: FeatureStorage = "memory") -> None:
        self.memory = memory
        self.features = features
        self.held = 0

    def has_room(self, size: int) -> bool:
        """Return whether a new map of `size` bytes is stored in memory."""
        return self.features != "disk" or self.held + size <= self.memory / 2

    def hold(self, size: int) -> None:
        """Count `size` bytes of a new map, and return memory freed by computing to the system."""
        self.held += size
        release_freed_memory()

    def strip_height(self, row_bytes: float, halo: int) -> int:
        """Return the number of rows of a strip that the rest of the memory allows.

        It is limited, as the halo costs little in strips of 52 + 6 * halo rows already.

        Args:
            row_bytes: bytes that are read and written for a row.
            halo: rows above and below a strip that are read too.
        """
        rows = int((self.memory - self.held) / (WORKING_SETS * row_bytes)) - 2 * halo
        if rows < STEP:
            missing = self.held + (STEP + 2 * halo) * WORKING_SETS * row_bytes - self.memory
            on_disk = "" if self.features == "disk" else ", or keep the features on disk"
            what_to_do = remedy(f"allow more, or free some{on_disk}", page="use a smaller version")
            raise OptionsError(
                f"memory: at least {missing / 2**30 + 0.01:.2f} GiB are missing to compute the "
                f"image in strips; {what_to_do}"
            )
        return min(rows, 52 + 6 * halo) // STEP * STEP


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


class RowStorage:
    """Memory or file that holds the rows of an N x C x H x W feature map.

    It has the type and device of the tensor `like`; its values are undefined at first.
    """

    def __init__(self, shape: tuple[int, ...], like: Tensor, budget: MemoryBudget) -> None:
        n, c, h, w = self.shape = torch.Size(shape)
        self.dtype, self.device, self.budget = like.dtype, like.device, budget
        self._held = 0
        rounded = budget.features == "bf16" and c > IMAGE_CHANNELS
        stored = torch.bfloat16 if rounded else like.dtype
        size = n * c * h * w * stored.itemsize
        self._file: mmap.mmap | None = None
        if not budget.has_room(size):
            self._file = _temporary_file(size)
            values = torch.frombuffer(self._file, dtype=stored)
        elif like.is_cuda:
            values = torch.empty(size // stored.itemsize, dtype=stored, device=like.device)
        else:
            values = torch.frombuffer(_anonymous_pages(size), dtype=stored)
        self._rows = values.view(h, n, w, c)
        self._held = 0 if self._file else size
        budget.hold(self._held)

    def __del__(self) -> None:
        self.budget.held -= self._held

    def read(self, top: int, bottom: int) -> Tensor:
        rows = self._rows[top:bottom].to(self.device, self.dtype, copy=self._file is not None)
        self._release_pages()
        pixels = rearrange(rows, "h n w c -> (n h) w c").contiguous()
        # From any other stride of the images, even of a single one, torch.cat infers that channels
        # are not last, and is slow.
        return rearrange(pixels, "(n h) w c -> n c h w", n=len(rows[0]))

    def write(self, top: int, values: Tensor) -> None:
        rows = rearrange(values, "n c h w -> h n w c")
        self._rows[top : top + len(rows)] = rows
        self._release_pages()

    def _release_pages(self) -> None:
        """Drop a file's pages from memory after use, so that the process does not hold them."""
        if self._file is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._file.madvise(mmap.MADV_DONTNEED)


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


def _anonymous_pages(size: int) -> mmap.mmap:
    """Allocate pages of their own, which the system gets back as soon as they are freed."""
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # kernels without huge pages
            pages.madvise(mmap.MADV_HUGEPAGE)
    return pages


def _temporary_file(size: int) -> mmap.mmap:
    """Map an unnamed file with its space allocated, so that a full disk is noticed here."""
    folder = _temporary_folder()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)
            return mmap.mmap(file.fileno(), 0)
    except OSError as error:
        what_to_do = remedy(
            "free some space, or name another folder in TMPDIR", page="use a smaller version"
        )
        raise OptionsError(
            f"memory: {folder} has no room for {size / 2**30:.2f} GiB of features more: "
            f"{error.strerror}; {what_to_do}"
        ) from None


def _temporary_folder() -> str:
    """Return /var/tmp unless TMPDIR is set: /tmp is often kept in memory."""
    on_disk = "/var/tmp"
    if "TMPDIR" not in os.environ and os.access(on_disk, os.W_OK):
        return on_disk
    return tempfile.gettempdir()


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
    for _, sums in _strips(function, x, halo=halo):
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


def _strips(function: Callable[..., Any], *inputs: Any, halo: int) -> Iterator[tuple[Span, Any]]:
    """Yield the span of each strip in the first map, and what `function` returns for it.

    `function` is called with the inputs, strips in place of maps, and the strip's own rows.
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
            read = [rows for rows, x in pairs if isinstance(x, StripMap)]
            row_values, row_bytes = (
                _per_row(read, last, size) + _per_row(_as_tuple(results), bottom, size)
                for size in (Tensor.numel, lambda x: x.nbytes)
            )
        yield (top, bottom), results
        del arguments, results  # before the next strip is read
        progress.add_strip(operation, (bottom - top) / height, (bottom - top) * row_values)
        top = bottom
        if top < height:
            rows = budget.strip_height(row_bytes, halo)


def _per_row(tensors: Sequence[Tensor], rows: int, size: Callable[[Tensor], int]) -> int:
    """Return the size of a row of all tensors, whose strips are as high as `rows` of the map."""
    return sum(size(x) for x in tensors) // rows


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
