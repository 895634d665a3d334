"""The parts of a training run, built from its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from basicsr.archs import RestorationNetwork, build_network
from basicsr.data import (
    BadImages,
    LoaderSettings,
    RestorationDataset,
    SampleStage,
    build_dataset,
)
from basicsr.evaluation.evaluate import check_images
from basicsr.inference.restorer import RestorerSettings
from basicsr.losses import LossTerms, build_losses
from basicsr.metrics import get_protocol
from basicsr.models.fitting import require_fitting, require_patches
from basicsr.models.mixup import Mixup
from basicsr.models.pretrained import network_with_weights, weights_file
from basicsr.models.restoration_model import OptimizerFactory, RestorationModel, StepSettings
from basicsr.models.schedules import warmed_up
from basicsr.options import TrainOptions
from basicsr.training.validation import Validator
from basicsr.utils.devices import usable_precision
from basicsr.utils.distributed import World
from basicsr.utils.errors import OptionsError, options_at
from basicsr.utils.registry import MODEL_REGISTRY, OPTIMIZER_REGISTRY, SCHEDULER_REGISTRY


def build_model(
    options: TrainOptions,
    datasets: Mapping[str, RestorationDataset],
    device: torch.device,
    world: World | None = None,
) -> RestorationModel:
    """Build the network with its losses, optimizer and learning-rate schedule.

    Args:
        options: the training options.
        datasets: training and validation sets by their keys in `datasets`.
        device: the device of this process.
        world: the processes of the run.

    Raises:
        OptionsError: if a data set or a loss does not fit the network.
    """
    torch.manual_seed(options.manual_seed)
    network = _network(options)
    for key, dataset in datasets.items():
        require_fitting(network, dataset, f"datasets.{key}")
    sizes = [stage.size for stage in options.datasets.train.patches]
    require_patches(network, sizes)
    if options.val is not None:
        RestorerSettings(**options.val.restoring()).require_supported(network)
    settings = options.train
    sharded = settings.sharded and world is not None and world.size > 1
    # A network that is to be sharded may not fit the device as a whole.
    first_device = torch.device("cpu") if sharded else device
    network = network.to(first_device).to(memory_format=torch.channels_last)
    losses = build_losses([loss.model_dump() for loss in settings.losses])
    try_losses(network, losses.to(first_device), first_device, min(sizes))
    schedule = SCHEDULER_REGISTRY.build(settings.scheduler.arguments())
    return MODEL_REGISTRY.entry(options.model_type).cls(
        network,
        losses.to(device),
        optimizer_factory(settings.optim_g.arguments()),
        warmed_up(schedule, settings.warmup_iter),
        device,
        StepSettings(
            precision=usable_precision(settings.precision, device),
            clip_grad_norm=settings.clip_grad_norm,
            ema_decay=settings.ema_decay,
            sharded=settings.sharded,
            compiled=settings.compile,
            mixup=_mixup(options),
        ),
        world,
    )


def _mixup(options: TrainOptions) -> Mixup | None:
    chosen = options.train.mixup
    return None if chosen is None else Mixup(**chosen.model_dump(), seed=options.manual_seed)


def _network(options: TrainOptions) -> RestorationNetwork:
    arguments, path = options.network_g.arguments(), options.path
    with options_at("network_g"):
        if path.pretrain_network_g is None:
            return build_network(arguments)
        weights = weights_file(path.pretrain_network_g)
        return network_with_weights(arguments, weights, path.strict_load_g)


@torch.no_grad()
def try_losses(
    network: RestorationNetwork, losses: LossTerms, device: torch.device, side: int = 32
) -> None:
    """Raise OptionsError if the outputs for patches of `side` pixels do not suit a loss."""
    side = network.fitting_side(min(side, 32))
    lq = torch.zeros(1, network.in_channels, side, side, device=device)
    gt = torch.zeros(1, network.out_channels, side, side, device=device)
    stages = network.eval()(lq, all_stages=True)
    try:
        losses(stages, gt)
    except ValueError as error:  # for example a stage that is not an image
        raise OptionsError(f"train.losses: {error}") from None


def optimizer_factory(arguments: dict[str, Any]) -> OptimizerFactory:
    """Return a factory for a registered optimizer; fused unless the options say otherwise."""
    arguments = dict(arguments)
    name = arguments.pop("type")
    cls = OPTIMIZER_REGISTRY.entry(name).cls
    excludes_fused = arguments.get("foreach") or arguments.get("differentiable")
    if "fused" in arguments and arguments["fused"] is None and not excludes_fused:
        arguments["fused"] = True

    def build(parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        try:
            return cls(parameters, **arguments)
        except (ValueError, RuntimeError, TypeError) as error:
            raise OptionsError(f"train.optim_g: {name}: {error}") from None

    return build


def build_validators(options: TrainOptions, folder: Path) -> list[Validator]:
    """Build a validator for each validation set, and decode all images of the sets once.

    A broken image fails now instead of at the first validation.
    """
    validators = []
    for key, section in options.datasets.validation.items():
        with options_at(f"datasets.{key}"):
            dataset = build_dataset(section.arguments())
        protocols = [get_protocol(name) for name in options.protocols_of(key)]
        if not dataset.has_gt and any(protocol.needs_reference for protocol in protocols):
            raise OptionsError(
                f"datasets.{key}: {type(dataset).__name__} has no ground truth; give it protocols "
                "that need none, such as niqe"
            )
        check_images(dataset, options.protocols_of(key), f"datasets.{key}")
        validators.append(Validator(key, dataset, options, folder))
    return validators


def loader_settings(
    options: TrainOptions, device: torch.device, world: World | None = None
) -> LoaderSettings:
    """Return how this process draws and loads training patches."""
    train_set = options.datasets.train
    world = world or World()
    return LoaderSettings(
        patches=[SampleStage(**stage.model_dump()) for stage in train_set.patches],
        seed=options.manual_seed,
        use_hflip=train_set.use_hflip,
        use_rot=train_set.use_rot,
        num_workers=train_set.num_worker_per_gpu,
        rank=world.rank,
        world_size=world.size,
        micro_batches=options.accumulation_steps,
        pin_memory=device.type == "cuda",
    )


def bad_images(options: TrainOptions) -> BadImages | None:
    """Return the counter of skipped images; None if the first bad image is to end the run."""
    train_set = options.datasets.train
    return BadImages(train_set.bad_image_limit) if train_set.on_bad_image == "skip" else None
