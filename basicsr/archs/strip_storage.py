"""Memory of networks computed in strips of rows: the budget, and the storage of feature maps."""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from basicsr.utils.devices import release_freed_memory
from basicsr.utils.errors import OptionsError, remedy

FeatureStorage = Literal["memory", "bf16", "disk"]

STEP = 8  # strips begin at multiples of it, and so at whole rows of every scale
IMAGE_CHANNELS = 6  # maps with at most this many channels are images, which are not rounded
WORKING_SETS = 10  # memory for computing a strip, in multiples of its inputs and outputs


class MemoryBudget:
    """Memory that a run in strips may use, and where it stores feature maps.

    Args:
        memory: bytes for feature maps and computing together.
        features: "memory", "bf16" (rounded, in half the memory) or "disk" (in unnamed temporary
            files, once maps take half of the memory, or all but what is reserved).

    Attributes:
        held: bytes of the maps in memory.
        reserved: bytes that maps leave to computing, with features on disk.
    """

    def __init__(self, memory: float, features: FeatureStorage = "memory") -> None:
        self.memory = memory
        self.features = features
        self.held = 0
        self.reserved = 0.0

    def has_room(self, size: int) -> bool:
        """Return whether a new map of `size` bytes is stored in memory."""
        most = min(self.memory / 2, self.memory - self.reserved)
        return self.features != "disk" or self.held + size <= most

    def hold(self, size: int) -> None:
        """Count `size` bytes of a new map, and return memory freed by computing to the system."""
        self.held += size
        release_freed_memory()

    def strip_height(self, row_bytes: float, halo: int, height: int) -> int:
        """Return the number of rows of a strip that the rest of the memory allows.

        It is limited, as the halo costs little in strips of 52 + 6 * halo rows already.

        Args:
            row_bytes: bytes that are read and written for a row.
            halo: rows above and below a strip that are read too.
            height: rows of the map.
        """
        self.require(self.held + _smallest_strip(row_bytes, halo, height))
        rows = (self.memory - self.held) / (WORKING_SETS * row_bytes) - 2 * halo
        return max(STEP, int(min(rows, 52 + 6 * halo)) // STEP * STEP)

    def require(self, least: float) -> None:
        """Raise OptionsError if the budget is smaller than `least` bytes."""
        if least <= self.memory:
            return
        on_disk = "" if self.features == "disk" else ", or keep the features on disk"
        what_to_do = remedy(f"allow more, or free some{on_disk}", page="use a smaller version")
        raise OptionsError(
            f"memory: at least {(least - self.memory) / 2**30 + 0.01:.2f} GiB are missing to "
            f"compute the image in strips; {what_to_do}"
        )


def _smallest_strip(row_bytes: float, halo: int, height: float) -> float:
    """Return the bytes for computing the smallest strip; see `strip_height`."""
    return min(STEP + 2 * halo, height) * WORKING_SETS * row_bytes


class TrialBudget(MemoryBudget):
    """Budget of a run on a small image, which shows how much memory the image itself needs.

    Args:
        features: of the budget of the image itself.
        columns: width of the image, divided by that of the small one.
        pixels: number of values of the image, divided by that of the small one.

    Attributes:
        least: bytes that the image needs, with the smallest strips.
        strip: bytes for computing the most expensive one of these.
    """

    def __init__(self, features: FeatureStorage, columns: float, pixels: float) -> None:
        super().__init__(float("inf"), "memory" if features == "disk" else features)
        self.columns = columns
        self.pixels = pixels
        self.on_disk = features == "disk"
        self.least = self.strip = 0.0

    def strip_height(self, row_bytes: float, halo: int, height: int) -> int:
        height_of_image = height * self.pixels / self.columns
        strip = self.columns * _smallest_strip(row_bytes, halo, height_of_image)
        held = 0 if self.on_disk else self.pixels * self.held
        self.strip = max(self.strip, strip)
        self.least = max(self.least, held + strip)
        return STEP


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
