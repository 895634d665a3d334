"""The parts of a training run, built from its options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from basicsr.archs import build_network, fitting_side
from basicsr.data import BadImages, RestorationDataset, SampleStage, build_dataset
from basicsr.losses import LossTerms, build_losses
from basicsr.models.pretrained import network_with_weights
from basicsr.models.restoration_model import RestorationModel
from basicsr.models.schedules import warmed_up
from basicsr.options import TrainOptions
from basicsr.utils.distributed import World
from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import MODEL_REGISTRY, SCHEDULER_REGISTRY


def build_model(
    options: TrainOptions, device: torch.device, world: World | None = None
) -> RestorationModel:
    """The network, its losses, optimizer and schedule."""
    torch.manual_seed(options.manual_seed)
    network = (
        network_with_weights(options.network_g.arguments(), options.path.pretrain_network_g)
        if options.path.pretrain_network_g
        else build_network(options.network_g.arguments())
    )
    settings = options.train
    sharded = settings.sharded and world is not None and world.size > 1
    at_first = torch.device("cpu") if sharded else device  # what is whole may not fit
    network = network.to(at_first).to(memory_format=torch.channels_last)
    losses = build_losses([loss.model_dump() for loss in settings.losses])
    try_losses(network, losses.to(at_first), at_first)
    return MODEL_REGISTRY.entry(options.model_type).cls(
        network,
        losses.to(device),
        optimizer(settings.optim_g.arguments()),
        warmed_up(SCHEDULER_REGISTRY.build(settings.scheduler.arguments()), settings.warmup_iter),
        device,
        precision=settings.precision,
        clip_grad_norm=settings.clip_grad_norm,
        ema_decay=settings.ema_decay,
        world=world,
        sharded=settings.sharded,
        compiled=settings.compile,
    )


@torch.no_grad()
def try_losses(network: nn.Module, losses: LossTerms, device: torch.device) -> None:
    """Raise what is wrong with a loss (a stage that is not there) before a run is begun."""
    side = fitting_side(network, 32)
    black = torch.zeros(1, 3, side, side, device=device)
    stages = network.eval()(black, all_stages=True)
    try:
        losses(stages, black)
    except ValueError as error:  # a stage that is no image for an image's loss, or the reverse
        raise OptionsError(f"train.losses: {error}") from None


def optimizer(
    arguments: dict[str, Any],
) -> Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer]:
    """What makes an optimizer of torch.optim for given parameters; its fused kind, unless told."""
    name = arguments.pop("type")
    cls = getattr(torch.optim, name)
    other_kind = arguments.get("foreach") or arguments.get("differentiable")
    if arguments.get("fused", ...) is None and not other_kind:
        arguments["fused"] = True

    def build(parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        try:
            return cls(parameters, **arguments)
        except (ValueError, RuntimeError, TypeError) as error:
            raise OptionsError(f"train.optim_g: {name}: {error}") from None

    return build


def validation_set(options: TrainOptions) -> RestorationDataset | None:
    """What is validated on, if anything. All its images are read, rather now than after hours."""
    if options.datasets.val is None:
        return None
    source = build_dataset(options.datasets.val.arguments())
    if not source.has_gt:
        raise OptionsError("datasets.val: without clean images there is nothing to validate on")
    source.check()
    return source


def sampling(
    options: TrainOptions, device: torch.device, world: World | None = None
) -> dict[str, Any]:
    """How training patches are drawn, as arguments of `training_batches`."""
    train_set = options.datasets.train
    world = world or World()
    return {
        "patches": [SampleStage(**stage.model_dump()) for stage in train_set.patches],
        "seed": options.manual_seed,
        "use_hflip": train_set.use_hflip,
        "use_rot": train_set.use_rot,
        "num_workers": train_set.num_worker_per_gpu,
        "rank": world.rank,
        "world_size": world.size,
        "micro_batches": options.train.accumulation_steps,
        "pin_memory": device.type == "cuda",
    }


def bad_images(options: TrainOptions) -> BadImages | None:
    """What counts the images to skip; None where the first bad one is to end the run."""
    train_set = options.datasets.train
    return BadImages(train_set.bad_image_limit) if train_set.on_bad_image == "skip" else None
