"""`train.py --check`: try the options, and estimate the cost of a step."""

from __future__ import annotations

from pathlib import Path

import torch

from basicsr.data import build_dataset, training_batches
from basicsr.models.cost import network_cost, training_memory
from basicsr.options import TrainOptions
from basicsr.training.build import build_model, build_validators, loader_settings
from basicsr.utils.errors import options_at


def check(options: TrainOptions, device: torch.device) -> None:
    """Build everything in `options`, read one batch, and print what a step will cost."""
    with options_at("datasets.train"):
        dataset = build_dataset(options.datasets.train.arguments())
    validators = build_validators(options, Path("experiments", options.name))
    datasets = {"train": dataset, **{each.key: each.dataset for each in validators}}
    model = build_model(options, datasets, device)
    batch = next(training_batches(dataset, loader_settings(options, device)))
    print(f"{options.name}: the options are valid; {len(dataset)} training images")
    for validator in validators:
        print(f"datasets.{validator.key}: {len(validator.dataset)} validation images")
    print(f"first batch: {tuple(batch.lq.shape)}, {', '.join(batch.names[:4])} ...")
    for stage in options.datasets.train.patches:
        size = model.network.fitting_side(stage.size)
        per_step = stage.batch_size // options.train.accumulation_steps
        shape = (per_step, model.network.in_channels, size, size)
        cost = network_cost(model.network, shape, options.train.precision)
        memory = training_memory(model.network, cost.activations, options.train.ema_decay > 0)
        print(
            f"patches of {stage.size}, {per_step} at a time: {cost.parameters:,} parameters, "
            f"{cost.macs / 1e9:.2f} GMACs forward, about {memory / 2**30:.2f} GiB to train"
        )
