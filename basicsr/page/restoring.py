"""Restore one uploaded photograph, with its previews, time and memory."""

from __future__ import annotations

import functools
import resource
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from basicsr.inference.files import ByChannels, require_photographs, restore_files
from basicsr.inference.jobs import Records, find_jobs
from basicsr.inference.restorer import Restorer, RestorerSettings
from basicsr.io.images import image_size, read_image
from basicsr.io.opening import opened
from basicsr.models.pretrained import saved_network
from basicsr.page.messages import Request, Restored, WorkerSettings
from basicsr.utils.devices import (
    available_memory,
    keep_freed_memory,
    peak_memory_gib,
    release_freed_memory,
    reset_peak_memory,
    select_device,
)
from basicsr.utils.errors import UserError

PREVIEW_PIXELS = 16_000_000
"""Previews of larger photographs are reduced to this size."""
TILE = 512
"""Side of the tiles that networks without strips restore in, in pixels."""
LARGEST_JPEG = 65500
"""Longest side of a JPEG file, in pixels."""


class PageRestorer:
    """Callable that restores a photograph; it keeps the networks that were used last."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.device = select_device(settings.device)
        self.memory_gib = settings.memory_gib
        if self.device.type == "cpu":
            # Restorers compute large images in strips that fit into what the limit leaves. It
            # counts addresses, and large freed blocks that glibc keeps would use them up.
            keep_freed_memory(False)
            limit_memory(self.memory_gib or available_memory(self.device) / 2**31)
            self.memory_gib = None
        self._restorer = functools.lru_cache(maxsize=2)(self._loaded)

    def __call__(self, request: Request, report: Callable[[float], None]) -> Restored:
        """Restore a photograph; call `report` with the part that is restored.

        Raises UserError if the photograph or the weights cannot be used.
        """
        height, width = image_size(request.source)
        restorers = [self._restorer(file, file.stat().st_mtime_ns) for file in request.weights]
        restorer = restorers[0] if len(restorers) == 1 else ByChannels(*restorers)
        folder = request.out / "restored"  # of its own, as the photograph may have any name
        folder.mkdir()
        (job,) = find_jobs([str(request.source)], folder)
        release_freed_memory()
        reset_peak_memory(self.device)
        began = time.perf_counter()
        outcome = restore_files(restorer, [job], Records(folder, {}), report=report)
        seconds = time.perf_counter() - began
        if outcome.failures:
            raise UserError(outcome.failures[0])
        memory = peak_memory_gib(self.device)
        before, after = (request.out / f"{name}.jpg" for name in ("before", "after"))
        write_preview(job.source, before)
        write_preview(job.target, after)
        return Restored(job.target, before, after, height, width, seconds, memory)

    def _loaded(self, weights: Path, modified: int) -> Restorer:
        """Return a restorer; `modified` tells versions of a file apart in the cache."""
        network, _ = saved_network(weights)
        require_photographs(network, weights)
        return Restorer(
            network,
            self.device,
            RestorerSettings(
                precision=self.settings.precision,
                memory_gib=self.memory_gib if network.supports_strips else None,
                features="disk",
                tile=None if network.supports_strips else TILE,
            ),
        )


def write_preview(photograph: Path, file: Path) -> None:
    """Write a JPEG of a photograph for a browser: 8 bits, upright, at most PREVIEW_PIXELS."""
    picture = Image.fromarray(read_image(photograph))
    with opened(photograph) as stored:
        profile = stored.info.get("icc_profile") if stored.mode in ("RGB", "RGBA") else None
    scale = (PREVIEW_PIXELS / (picture.width * picture.height)) ** 0.5
    if scale < 1:
        size = (int(picture.width * scale) or 1, int(picture.height * scale) or 1)
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    picture.thumbnail((LARGEST_JPEG, LARGEST_JPEG))
    picture.save(file, "JPEG", quality=92, subsampling=0, icc_profile=profile)


def limit_memory(gib: float) -> None:
    """Let this process allocate `gib` GiB more than now; allocations beyond that fail."""
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    limit = pages * resource.getpagesize() + int(gib * 2**30)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
