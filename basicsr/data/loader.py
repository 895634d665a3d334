"""Loader of training batches whose content is a function of (seed, iteration) alone.

The crop, flips and degradation of a sample come from a random generator keyed by (seed, epoch,
image), and the order of images from SampleSchedule. The number of workers, ranks and micro-batches
and the iteration that a run is resumed at therefore change nothing. An unusable image that is to be
skipped is replaced by the next usable one in the epoch's order.
"""

from __future__ import annotations

import faulthandler
import importlib
import itertools
import logging
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from basicsr.data.base import (
    PATCH,
    ImagePair,
    OtherImageError,
    RestorationDataset,
    generator,
)
from basicsr.data.sampling import Draw, SampleSchedule, SampleStage, draw_patch, epoch_order
from basicsr.data.workers import answers, shared_bytes, usable_workers
from basicsr.utils.errors import DataError, OptionsError, UserError
from basicsr.utils.interruptions import DUMP_STACKS

PREFETCHED = 2
"""Batches that each worker prepares ahead."""

logger = logging.getLogger("basicsr")


@dataclass(frozen=True)
class LoaderSettings:
    """Settings for drawing and loading training patches.

    Args:
        patches: stages of the run, with global batch sizes.
        seed: seed of order, crops, flips and degradations.
        use_hflip: as in `draw_patch`.
        use_rot: as in `draw_patch`.
        num_workers: loader processes; 0 loads in this one.
        rank: number of this process among `world_size` that share each batch.
        world_size: number of processes.
        micro_batches: batches per iteration and process (gradient accumulation).
        pin_memory: whether batches are in page-locked memory, for fast copies to a GPU.
    """

    patches: Sequence[SampleStage]
    seed: int = 0
    use_hflip: bool = True
    use_rot: bool = True
    num_workers: int = 0
    rank: int = 0
    world_size: int = 1
    micro_batches: int = 1
    pin_memory: bool = False

    def schedule(self, images: int, start: int) -> SampleSchedule:
        """Return this rank's schedule over `images` images from iteration `start`."""
        return SampleSchedule(
            self.patches,
            images,
            self.seed,
            start=start,
            rank=self.rank,
            world_size=self.world_size,
            micro_batches=self.micro_batches,
        )


class TrainingBatch(NamedTuple):
    """Patches of one micro-batch.

    `lq` and `gt` are b x C x size x size tensors of uint8, uint16 or float32, channels last in
    memory. `names` are the images that the patches were cropped from. `skipped` has the names of
    unusable images that others replaced, and the reasons.
    """

    lq: torch.Tensor
    gt: torch.Tensor
    names: list[str]
    skipped: Sequence[tuple[str, str]] = ()


Batches = Generator[TrainingBatch, None, None]


class BadImages:
    """Unusable images that training skips, at most `limit` of them.

    `found` maps their names to the reasons. It is a plain dict to be stored with a training state;
    `note` takes the items of an earlier run and of other ranks as well.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.found: dict[str, str] = {}

    def note(self, skipped: Iterable[tuple[str, str]]) -> None:
        """Log and count new (name, reason) items. Raises DataError above the limit."""
        for name, reason in skipped:
            if name not in self.found:
                self.found[name] = reason
                logger.warning(
                    "image skipped, number %d of at most %d: %s",
                    len(self.found),
                    self.limit,
                    reason,
                )
        self.require_few(self.found)

    def require_few(self, found: Mapping[str, str]) -> None:
        """Raise DataError with the first three reasons if `found` is more than the limit."""
        if len(found) > self.limit:
            reasons = list(found.values())
            more = "; ..." if len(reasons) > 3 else ""
            raise DataError(
                f"{len(found)} training images cannot be used, and bad_image_limit is "
                f"{self.limit}; repair them, remove them or raise the limit: "
                f"{'; '.join(reasons[:3])}{more}"
            )


def training_batches(
    dataset: RestorationDataset,
    settings: LoaderSettings,
    start: int = 0,
    bad_images: BadImages | None = None,
) -> Batches:
    """Return a generator of this rank's batches, one per micro-batch.

    Args:
        dataset: images with ground truth.
        settings: how patches are drawn and loaded.
        start: iteration to begin with, from 0.
        bad_images: where skipped images are counted; None ends the run at the first.

    Raises:
        OptionsError: the schedule cannot be shared evenly, or there is no ground truth.
        DataError: while iterating, for an unusable image, or too many.
    """
    if not dataset.has_gt:
        raise OptionsError(f"{type(dataset).__name__} has no ground truth to train on")
    schedule = settings.schedule(len(dataset), start)
    layout = _BatchLayout.of(dataset)
    workers = usable_workers(settings.num_workers)
    slots = PREFETCHED * workers + 1  # one is copied while the others are filled
    largest = max(
        layout.slot_bytes(stage.batch_size // schedule.shares, stage.size)
        for stage in settings.patches
    )
    memory = shared_bytes(slots, largest)
    importlib.import_module("cv2")  # once, before each forked worker does
    patches = _Patches(dataset, settings, bad_images, memory, layout)

    def load(done: int) -> DataLoader:
        """Return a loader of all micro-batches but the first `done`."""
        iterations, rest = divmod(done, settings.micro_batches)
        remaining = settings.schedule(len(dataset), start + iterations)
        return DataLoader(
            patches,
            sampler=zip(itertools.cycle(range(slots)), itertools.islice(remaining, rest, None)),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=PREFETCHED if workers else None,
            collate_fn=_identity,
            worker_init_fn=_start_worker,
            # the loader draws its workers' base seed; keep that out of the global random stream
            generator=torch.Generator(),
        )

    return _received(load, memory, layout, bad_images, settings.pin_memory)


class _BatchLayout(NamedTuple):
    """Bytes of a batch: the patches of `lq`, then those of `gt`, each b x size x size x C."""

    channels: tuple[int, int]
    dtypes: tuple[torch.dtype, torch.dtype]

    @classmethod
    def of(cls, dataset: RestorationDataset) -> _BatchLayout:
        lq, gt = (torch.from_numpy(np.empty(0, t)) for t in (dataset.lq_dtype, dataset.gt_dtype))
        return cls((dataset.lq_channels, dataset.gt_channels), (lq.dtype, gt.dtype))

    def slot_bytes(self, pairs: int, size: int) -> int:
        """Return the bytes of `pairs` pairs of patches, aligned for any of the types."""
        _, _, stop = self._bounds(pairs, size)
        return stop + -stop % max(dtype.itemsize for dtype in self.dtypes)

    def views(
        self, memory: torch.Tensor, pairs: int, size: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `lq` and `gt` as views of the first bytes of `memory`."""
        lq_stop, gt_start, gt_stop = self._bounds(pairs, size)
        lq = memory[:lq_stop].view(self.dtypes[0])
        gt = memory[gt_start:gt_stop].view(self.dtypes[1])
        shape = (pairs, size, size)
        return lq.view(*shape, self.channels[0]), gt.view(*shape, self.channels[1])

    def _bounds(self, pairs: int, size: int) -> tuple[int, int, int]:
        """Return where the bytes of `lq` stop, and where those of `gt` start and stop."""
        pixels = pairs * size * size
        lq_stop = pixels * self.channels[0] * self.dtypes[0].itemsize
        gt_start = lq_stop + -lq_stop % self.dtypes[1].itemsize  # aligned
        return lq_stop, gt_start, gt_start + pixels * self.channels[1] * self.dtypes[1].itemsize


class _Loaded(NamedTuple):
    """Answer of a worker; the patches are in the slot of the shared memory."""

    slot: int
    pairs: int
    size: int
    names: list[str]
    skipped: list[tuple[str, str]]


class _Patches(Dataset):
    """Map from (slot, draws) to batches that loader workers evaluate.

    Patches are written straight into `memory`, slots x bytes, which the main process shares.
    Tensors sent through the loader's queue would cost several times the work on the patches.
    """

    def __init__(
        self,
        dataset: RestorationDataset,
        settings: LoaderSettings,
        bad_images: BadImages | None,
        memory: torch.Tensor,
        layout: _BatchLayout,
    ) -> None:
        self.dataset, self.settings, self.bad_images = dataset, settings, bad_images
        self.memory, self.layout = memory, layout

    def __getitem__(self, request: tuple[int, list[Draw]]) -> _Loaded | UserError:
        slot, draws = request
        loaded = _Loaded(slot, len(draws), draws[0].size, [], [])
        views = self.layout.views(self.memory[slot], loaded.pairs, loaded.size)
        lq, gt = (view.numpy() for view in views)
        try:
            for position, draw in enumerate(draws):
                image, patches, skipped = self._drawn(draw)
                loaded.names.append(self.dataset.names[image])
                loaded.skipped.extend(skipped.items())
                _store(patches.lq, lq[position], "lq")
                _store(patches.gt, gt[position], "gt")
        except UserError as error:  # raised in a worker, it would arrive with a stack trace
            return error
        return loaded

    def _drawn(self, draw: Draw) -> tuple[int, ImagePair, dict[str, str]]:
        """Return the image's number, its degraded patches, and what was skipped for it."""
        rng = generator(PATCH, self.settings.seed, draw.epoch, draw.image)
        image, pair, skipped = self._read(draw)
        pair = draw_patch(
            pair, draw.size, rng, use_hflip=self.settings.use_hflip, use_rot=self.settings.use_rot
        )
        while True:
            try:
                return image, self.dataset.degrade(image, pair, rng), skipped
            except OtherImageError as error:
                if self.bad_images is None:
                    raise
                skipped[error.name] = str(error)
                self.bad_images.require_few(skipped)

    def _read(self, draw: Draw) -> tuple[int, ImagePair, dict[str, str]]:
        """Return the drawn image, or its replacement, and what was skipped for it."""
        if self.bad_images is None:
            return draw.image, self.dataset.read(draw.image), {}
        skipped: dict[str, str] = {}
        for image in self._candidates(draw):
            try:
                return image, self.dataset.read(image), skipped
            except DataError as error:
                skipped[self.dataset.names[image]] = str(error)
                self.bad_images.require_few(skipped)
        first, *_ = skipped.values()
        raise DataError(f"none of the {len(skipped)} training images can be used: {first}; ...")

    def _candidates(self, draw: Draw) -> Iterator[int]:
        """Yield the drawn image, then all others in the epoch's order."""
        yield draw.image
        order = epoch_order(draw.epoch, len(self.dataset), self.settings.seed)
        position = int(np.flatnonzero(order == draw.image)[0])
        yield from np.concatenate([order[position + 1 :], order[:position]]).tolist()


def _store(patch: np.ndarray | None, slot: np.ndarray, side: str) -> None:
    """Copy a patch without a cast or a broadcast that would hide a faulty data set."""
    assert patch is not None
    if patch.shape != slot.shape or patch.dtype != slot.dtype:
        raise DataError(
            f"the data set yields {side} of {patch.shape} {patch.dtype}, but announces "
            f"{slot.shape} {slot.dtype}; correct its {side}_channels or {side}_dtype"
        )
    slot[:] = patch


def _identity(answer: Any) -> Any:
    return answer


def _received(
    load: Callable[[int], DataLoader],
    memory: torch.Tensor,
    layout: _BatchLayout,
    bad_images: BadImages | None,
    pin_memory: bool,
) -> Batches:
    """Yield what the workers loaded, copied from the slots, which they will fill again."""
    for loaded in answers(load):
        if isinstance(loaded, UserError):
            raise loaded
        if bad_images is not None:
            bad_images.note(loaded.skipped)
        size = layout.slot_bytes(loaded.pairs, loaded.size)
        batch = torch.empty(size, dtype=torch.uint8, pin_memory=pin_memory)
        batch.copy_(memory[loaded.slot, :size])
        lq, gt = layout.views(batch, loaded.pairs, loaded.size)
        yield TrainingBatch(
            lq.permute(0, 3, 1, 2), gt.permute(0, 3, 1, 2), loaded.names, loaded.skipped
        )


def _start_worker(worker: int) -> None:
    """Ignore signals that end a run: a scheduler sends them to every process of a job.

    The main process handles them; a worker ends with the loader's iterator, or with its parent.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.register(DUMP_STACKS, file=2)  # in notebooks sys.stderr is not a file
