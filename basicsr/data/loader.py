"""Training batches whose content is a function of (seed, iteration) alone.

Sample number n of a run, counted over all iterations of all stages, is image
`order_of(n // length)[n % length]`; its crop, flips and rain come from a generator keyed by
(seed, epoch, index). So neither the number of workers or ranks, nor micro-batches, nor where a run
was resumed changes what is seen at an iteration. Where an image that cannot be used is to be
skipped, the next one in the epoch's order that can be used takes its place.
"""

from __future__ import annotations

import faulthandler
import importlib
import itertools
import math
import signal
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from basicsr.data.bad_images import BadImages
from basicsr.data.base import PATCH, ImagePair, RestorationDataset, generator
from basicsr.data.sampling import draw_patch, order_of
from basicsr.utils.errors import DataError, OptionsError, UserError
from basicsr.utils.interruptions import DUMP_STACKS

PREFETCHED = 2
"""Batches that each worker draws ahead."""


class SampleStage(NamedTuple):
    """A row of the patch schedule: `batch_size` is global, over all ranks and micro-batches."""

    size: int
    batch_size: int
    iters: int


class TrainingBatch(NamedTuple):
    """`lq` and `gt`: b x 3 x size x size uint8 RGB, channels last in memory; `names`: the images
    they were cut from.

    `skipped`: names and reasons of images that could not be used and were replaced by others.
    """

    lq: torch.Tensor
    gt: torch.Tensor
    names: list[str]
    skipped: Sequence[tuple[str, str]] = ()


Batches = Generator[TrainingBatch, None, None]


class Draw(NamedTuple):
    """What a worker is asked for: a patch of `size` from an image, as drawn in `epoch`."""

    epoch: int
    image: int
    size: int


class SampleSchedule:
    """The draws of one rank, one list per micro-batch, from iteration `start` to the last."""

    def __init__(
        self,
        patches: Sequence[SampleStage],
        length: int,
        seed: int,
        *,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
        micro_batches: int = 1,
    ) -> None:
        shares = world_size * micro_batches
        for stage in patches:
            if stage.batch_size % shares:
                raise OptionsError(
                    f"patches: batch_size {stage.batch_size} cannot be shared by {world_size} "
                    f"ranks x {micro_batches} micro-batches; use a multiple of {shares}"
                )
        self.patches, self.length, self.seed, self.start = patches, length, seed, start
        self.rank, self.micro_batches, self.shares = rank, micro_batches, shares

    def __iter__(self) -> Iterator[list[Draw]]:
        first_iteration = first_sample = 0
        for stage in self.patches:
            share = stage.batch_size // self.shares
            for iteration in range(max(self.start - first_iteration, 0), stage.iters):
                batch = first_sample + iteration * stage.batch_size
                for micro_batch in range(self.micro_batches):
                    sample = batch + (self.rank * self.micro_batches + micro_batch) * share
                    yield [self._draw(sample + i, stage.size) for i in range(share)]
            first_iteration += stage.iters
            first_sample += stage.iters * stage.batch_size

    def _draw(self, sample: int, size: int) -> Draw:
        epoch, position = divmod(sample, self.length)
        order = order_of(epoch, self.length, self.seed)
        return Draw(epoch, int(order[position]), size)


def training_batches(
    source: RestorationDataset,
    *,
    patches: Sequence[SampleStage],
    seed: int,
    start: int,
    use_hflip: bool,
    use_rot: bool,
    num_workers: int,
    rank: int = 0,
    world_size: int = 1,
    micro_batches: int = 1,
    pin_memory: bool = False,
    bad_images: BadImages | None = None,
) -> Batches:
    """This rank's batches from iteration `start` (from 0) to the schedule's end.

    One batch per micro-batch, `micro_batches` of them to an iteration. With `bad_images`, what
    cannot be used is skipped and noted there when its batch is given out. Raises OptionsError for a
    schedule that cannot be shared evenly, DataError for an image that cannot be used, or too many.
    """
    if not source.has_gt:
        raise OptionsError(f"{type(source).__name__} has no clean images to train on")
    schedule = SampleSchedule(
        patches,
        len(source),
        seed,
        start=start,
        rank=rank,
        world_size=world_size,
        micro_batches=micro_batches,
    )
    slots = PREFETCHED * num_workers + 1  # one is copied while the others are filled
    largest = max(2 * stage.batch_size // schedule.shares * 3 * stage.size**2 for stage in patches)
    memory = torch.empty(slots, largest, dtype=torch.uint8).share_memory_()
    importlib.import_module("cv2")  # once, before each forked worker does
    loader = DataLoader(
        _Patches(source, seed, use_hflip, use_rot, bad_images, memory),
        sampler=zip(itertools.cycle(range(slots)), schedule),
        batch_size=None,
        num_workers=num_workers,
        prefetch_factor=PREFETCHED if num_workers else None,
        collate_fn=_as_it_is,
        worker_init_fn=_start_worker,
        # the loader draws its workers' base seed; the global stream is left alone
        generator=torch.Generator(),
    )
    return _received(loader, memory, bad_images, pin_memory)


class _Drawn(NamedTuple):
    """What a worker answers; the patches are in the slot: lq or gt x b x size x size x 3."""

    slot: int
    shape: tuple[int, ...]
    names: list[str]
    skipped: list[tuple[str, str]]


class _Patches(Dataset):
    """The map from (slot, draws) to batches that loader workers evaluate.

    Patches are written straight into `memory`, slots x bytes, which the main process shares.
    Tensors sent through the loader's queue would cost several times the drawing itself.
    """

    def __init__(
        self,
        source: RestorationDataset,
        seed: int,
        use_hflip: bool,
        use_rot: bool,
        bad_images: BadImages | None,
        memory: torch.Tensor,
    ) -> None:
        self.source, self.seed = source, seed
        self.use_hflip, self.use_rot = use_hflip, use_rot
        self.bad_images, self.memory = bad_images, memory

    def __getitem__(self, request: tuple[int, list[Draw]]) -> _Drawn | UserError:
        slot, draws = request
        size = draws[0].size
        drawn = _Drawn(slot, (2, len(draws), size, size, 3), [], [])
        patches = _in_slot(self.memory, drawn).numpy()
        try:
            for place, draw in enumerate(draws):
                image, patches[0, place], patches[1, place], skipped = self._drawn(draw)
                drawn.names.append(self.source.names[image])
                drawn.skipped.extend(skipped.items())
        except UserError as error:  # raised in a worker, it would arrive with a stack trace
            return error
        return drawn

    def _drawn(self, draw: Draw) -> tuple[int, np.ndarray, np.ndarray, dict[str, str]]:
        rng = generator(PATCH, self.seed, draw.epoch, draw.image)
        image, pair, skipped = self._read(draw)
        pair = draw_patch(pair, draw.size, rng, use_hflip=self.use_hflip, use_rot=self.use_rot)
        lq, gt = self.source.render(image, pair, rng)
        assert gt is not None
        return image, lq, gt, skipped

    def _read(self, draw: Draw) -> tuple[int, ImagePair, dict[str, str]]:
        """The image that is drawn, or the one in its place, and what was skipped for it."""
        if self.bad_images is None:
            return draw.image, self.source.read(draw.image), {}
        skipped: dict[str, str] = {}
        for image in self._from(draw):
            try:
                return image, self.source.read(image), skipped
            except DataError as error:
                skipped[self.source.names[image]] = str(error)
                self.bad_images.require_few(skipped)
        first, *_ = skipped.values()
        raise DataError(f"none of the {len(skipped)} training images can be used: {first}; ...")

    def _from(self, draw: Draw) -> Iterator[int]:
        """The image that is drawn, then all others in the epoch's order."""
        yield draw.image
        order = order_of(draw.epoch, len(self.source), self.seed)
        place = int(np.flatnonzero(order == draw.image)[0])
        yield from np.concatenate([order[place + 1 :], order[:place]]).tolist()


def _in_slot(memory: torch.Tensor, drawn: _Drawn) -> torch.Tensor:
    return memory[drawn.slot, : math.prod(drawn.shape)].view(drawn.shape)


def _as_it_is(answer: Any) -> Any:
    return answer


def _received(
    loader: DataLoader, memory: torch.Tensor, bad_images: BadImages | None, pin_memory: bool
) -> Batches:
    """What the workers drew, copied from the slots, which they will fill again."""
    for drawn in _alive(loader):
        if isinstance(drawn, UserError):
            raise drawn
        if bad_images is not None:
            bad_images.note(drawn.skipped)
        both = torch.empty(drawn.shape, dtype=torch.uint8, pin_memory=pin_memory)
        lq, gt = both.copy_(_in_slot(memory, drawn)).permute(0, 1, 4, 2, 3)
        yield TrainingBatch(lq, gt, drawn.names, drawn.skipped)


def _alive(loader: DataLoader) -> Iterator[Any]:
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            "a loader worker was killed, often for want of memory: lower num_worker_per_gpu or "
            "cache_gib, then resume with --auto_resume"
        ) from None


def _start_worker(worker: int) -> None:
    """Leave the end of the run to the main process, whatever signal asks for it: a scheduler sends
    its own to every process of a job. The worker ends with the iterator, or with its parent."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.register(DUMP_STACKS, file=2)  # in notebooks sys.stderr is no file
