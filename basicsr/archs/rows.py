"""Images of any size: feature maps that are computed and kept by strips of rows.

A network runs on `Rows` as on a tensor, with the same result. What looks at a pixel's neighbourhood
is marked `row_local`: it is computed strip by strip, each with the rows above and below that it
needs. What looks at the whole image has to be a sum over its pixels, as the Gram matrix of a
transposed attention is; `strips` gives its terms. Maps that are `spent` are written over.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor

from basicsr.utils.devices import release_freed_memory
from basicsr.utils.errors import OptionsError

Keep = Literal["memory", "bf16", "disk"]

STEP = 8  # strips begin at multiples of it, and so at whole rows of every scale
IMAGE_CHANNELS = 6  # maps of so few channels are images, which are not rounded
WORK = 10  # what computing a strip takes, in sizes of what it reads and writes


class Plan:
    """What may be taken, and where feature maps are kept.

    Args:
        memory: bytes for maps and work together.
        keep: "memory", "bf16" (rounded, in half the memory) or "disk" (in files without a name,
            where temporary files are, once maps take half of the memory).
    """

    def __init__(self, memory: float, keep: Keep = "memory") -> None:
        self.memory = memory
        self.keep = keep
        self.held = 0

    def has_room(self, size: int) -> bool:
        """Whether a new map of `size` bytes belongs into memory."""
        return self.keep != "disk" or self.held + size <= self.memory / 2

    def hold(self, size: int) -> None:
        """Count `size` bytes of a new map, and give back what work on earlier ones has freed."""
        self.held += size
        release_freed_memory()

    def strip_height(self, row_bytes: float, halo: int) -> int:
        """Rows of a strip for which there is memory, where each reads and writes `row_bytes`.

        They are as low as their halo allows without costing much; higher ones hold more.
        """
        rows = int((self.memory - self.held) / (WORK * row_bytes)) - 2 * halo
        if rows < STEP:
            missing = self.held + (STEP + 2 * halo) * WORK * row_bytes - self.memory
            advice = "" if self.keep == "disk" else ", or keep the features on disk"
            raise OptionsError(
                f"memory: at least {missing / 2**30 + 0.01:.2f} GiB are missing to compute the "
                f"image in strips; allow more, or free some{advice}"
            )
        return min(rows, 20 + 6 * halo) // STEP * STEP


class Rows:
    """An N x C x H x W map that is read and written by rows."""

    def __init__(self, shape: tuple[int, ...], like: Tensor, plan: Plan) -> None:
        """Of the type and device of `like`; its values are undefined."""
        n, c, h, w = self.shape = torch.Size(shape)
        self.dtype, self.device, self.plan = like.dtype, like.device, plan
        self.is_spent = False
        self._held = 0
        kept = torch.bfloat16 if plan.keep == "bf16" and c > IMAGE_CHANNELS else like.dtype
        size = n * c * h * w * kept.itemsize
        self._file: mmap.mmap | None = None
        if not plan.has_room(size):
            self._file = _mapped_file(size)
            pixels = torch.frombuffer(self._file, dtype=kept)
        elif like.is_cuda:
            pixels = torch.empty(size // kept.itemsize, dtype=kept, device=like.device)
        else:  # pages of its own, so that the system has them again when it is freed
            pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if hasattr(mmap, "MADV_HUGEPAGE"):
                with contextlib.suppress(OSError):  # kernels without huge pages
                    pages.madvise(mmap.MADV_HUGEPAGE)
            pixels = torch.frombuffer(pages, dtype=kept)
        self._pixels = pixels.view(h, n, w, c)
        self._held = 0 if self._file else size
        plan.hold(self._held)

    def __del__(self) -> None:
        self.plan.held -= self._held

    @classmethod
    def of(cls, image: Tensor, plan: Plan) -> Rows:
        rows = cls(image.shape, image, plan)
        rows.write(0, image)
        return rows

    def read(self, top: int, bottom: int) -> Tensor:
        pixels = self._pixels[top:bottom].to(self.device, self.dtype, copy=self._file is not None)
        self._leave_to_the_system()
        return pixels.permute(1, 3, 0, 2).contiguous(memory_format=torch.channels_last)

    def write(self, top: int, values: Tensor) -> None:
        self._pixels[top : top + values.shape[2]] = values.permute(2, 0, 3, 1)
        self._leave_to_the_system()

    def whole(self) -> Tensor:
        return self.read(0, self.shape[2])

    def _leave_to_the_system(self) -> None:
        """A file's pages that were used, so that they do not count as this process's memory."""
        if self._file is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._file.madvise(mmap.MADV_DONTNEED)


def _mapped_file(size: int) -> mmap.mmap:
    """Without a name, and with its space: a disk that is full ends nothing later."""
    try:
        with tempfile.TemporaryFile(dir=_folder_of_files()) as file:
            os.posix_fallocate(file.fileno(), 0, size)
            return mmap.mmap(file.fileno(), 0)
    except OSError as error:
        raise OptionsError(
            f"memory: {_folder_of_files()} cannot hold {size / 2**30:.2f} GiB of features more: "
            f"{error.strerror}; free some space, or name another folder in TMPDIR"
        ) from None


def _folder_of_files() -> str:
    """/tmp may be memory itself, which /var/tmp is not."""
    on_disk = "/var/tmp"
    if "TMPDIR" not in os.environ and os.access(on_disk, os.W_OK):
        return on_disk
    return tempfile.gettempdir()


X = TypeVar("X")
Span = tuple[int, int]


def spent(x: X) -> X:
    """`x`; if it is `Rows`, the next operation may write its result over them."""
    if isinstance(x, Rows):
        x.is_spent = True
    return x


def strips(function: Callable[..., Any], *inputs: Any, halo: int) -> Iterator[tuple[Span, Any]]:
    """Call `function` on every strip of those inputs that are `Rows`, the others given as they are.

    `halo` is the reach of `function` in rows of its first map, whose strips they are; maps and
    results (a tensor or a tuple of them) may be of other scales. Yields each strip's first row and
    the one below its last, and what was computed for the strip, without the halo.
    """
    maps = [x for x in inputs if isinstance(x, Rows)]
    height, plan = maps[0].shape[2], maps[0].plan
    top, rows = 0, STEP  # the first strip is small and tells how large the results are
    while top < height:
        bottom = min(top + rows, height)
        first, last = max(0, top - halo), min(bottom + halo, height)
        parts = [_part(x, first, last, height) if isinstance(x, Rows) else x for x in inputs]
        results = function(*parts)
        if top == 0:
            read = [part for part, x in zip(parts, inputs, strict=True) if isinstance(x, Rows)]
            bytes_of_row = sum(x.nbytes for x in (*read, *_tuple(results))) / (last - first)
        inner = tuple(_without_halo(y, first, top, bottom, last) for y in _tuple(results))
        yield (top, bottom), inner if isinstance(results, tuple) else inner[0]
        del parts, results, inner
        top = bottom
        if top < height:
            rows = plan.strip_height(bytes_of_row, halo)


def _tuple(results: Any) -> tuple[Tensor, ...]:
    return results if isinstance(results, tuple) else (results,)


def _part(x: Rows, first: int, last: int, height: int) -> Tensor:
    """The rows of `x` that are rows [first, last) of a map of that `height`."""
    return x.read(first * x.shape[2] // height, last * x.shape[2] // height)


def _without_halo(y: Tensor, first: int, top: int, bottom: int, last: int) -> Tensor:
    """Rows [top, bottom) of `y`, which has been computed for rows [first, last)."""
    start, stop = ((row - first) * y.shape[2] // (last - first) for row in (top, bottom))
    return y[:, :, start:stop]


Function = TypeVar("Function", bound=Callable[..., Any])


def row_local(halo: int) -> Callable[[Function], Function]:
    """For functions whose results depend on rows at most `halo` away, counted in the first map.

    Their tensors are N x C x H x W, of one height or of heights that are multiples of each other.
    Where some of the arguments are `Rows`, the results are `Rows` too.
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def call(*inputs: Any) -> Any:
            if any(isinstance(x, Rows) for x in inputs):
                return _by_strips(function, *inputs, halo=halo)
            return function(*inputs)

        return cast(Function, call)

    return decorate


def _by_strips(function: Callable[..., Any], *inputs: Any, halo: int) -> Any:
    maps = [x for x in inputs if isinstance(x, Rows)]
    height = maps[0].shape[2]
    outputs: list[Rows] = []
    waiting: deque[tuple[int, int, tuple[Tensor, ...]]] = deque()

    def write_first() -> None:
        top, _, values = waiting.popleft()
        for rows, y in zip(outputs, values, strict=True):
            rows.write(top * rows.shape[2] // height, y)

    for (top, bottom), results in strips(function, *inputs, halo=halo):
        waiting.append((top, bottom, _tuple(results)))
        if not outputs:
            outputs = [_place(y, height / bottom, maps) for y in _tuple(results)]
            read_again = halo if any(y is x for y in outputs for x in maps) else 0
        while waiting and waiting[0][1] <= bottom - read_again:
            write_first()
    while waiting:
        write_first()
    return tuple(outputs) if isinstance(results, tuple) else outputs[0]


def _place(y: Tensor, heights: float, maps: list[Rows]) -> Rows:
    """For a map of so many `heights` of `y`: that of a spent one, or a new one."""
    n, c, h, w = y.shape
    shape = (n, c, round(h * heights), w)
    for x in maps:
        if x.is_spent and x.shape == shape and x.dtype == y.dtype:
            x.is_spent = False
            return x
    return Rows(shape, y, maps[0].plan)
