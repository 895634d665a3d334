"""Train a network from an option file:  python basicsr/train.py -opt options/train/...yml"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from basicsr.archs import build_network, fitting_side
from basicsr.data import BadImages, ImageSource, PatchStage, build_dataset, training_batches
from basicsr.losses import LossTerms, build_losses
from basicsr.metrics import Scores
from basicsr.models.cost import network_cost, training_memory
from basicsr.models.evaluation import evaluate, mean_scores
from basicsr.models.pretrained import network_with_weights
from basicsr.models.restoration_model import RestorationModel
from basicsr.models.restoring import Restorer, quantize
from basicsr.models.run_folder import RunFolder
from basicsr.models.schedules import warmed_up
from basicsr.options import TrainOptions, Validation, load_options, save_options
from basicsr.utils.checkpoints import load_state
from basicsr.utils.cli import command
from basicsr.utils.devices import select_device
from basicsr.utils.errors import OptionsError
from basicsr.utils.provenance import device_name
from basicsr.utils.registry import MODEL_REGISTRY, SCHEDULER_REGISTRY
from basicsr.utils.run_log import RunLog, TrainingReport, start_logging


@command
def main() -> None:
    parser = argparse.ArgumentParser(description="Train a network from an option file.")
    parser.add_argument("-opt", required=True, metavar="FILE", help="YAML option file")
    parser.add_argument(
        "--force_yml", nargs="+", default=[], metavar="a:b:c=value", help="replace these options"
    )
    parser.add_argument(
        "--auto_resume", action="store_true", help="go on from this run's newest training state"
    )
    parser.add_argument(
        "--check", action="store_true", help="build everything, read a batch, tell the cost, stop"
    )
    arguments = parser.parse_args()
    options = load_options(TrainOptions, arguments.opt, arguments.force_yml)
    if arguments.check:
        check(options)
    else:
        train(options, arguments.auto_resume)


def train(options: TrainOptions, auto_resume: bool = False) -> None:
    """Run the training that `options` describe, from its beginning or from a training state."""
    device = select_device(options.device)
    source = build_dataset(options.datasets.train.arguments())
    val_source = validation_set(options)
    model = build_model(options, device)
    folder = RunFolder(Path("experiments", options.name), options.logger.keep_checkpoints)
    state = state_to_resume(options, folder, auto_resume)
    if state:
        model.load_state_dict(state)
    batches = training_batches(source, start=state.get("iteration", 0), **sampling(options, device))

    archived = None if state else folder.start_afresh()
    logger = start_logging(folder.path / "train.log")
    if archived:
        logger.info("the earlier run of this name is now %s", archived)
    save_options(options, folder.path / "options.yml")
    start, total = state.get("iteration", 0), options.train.total_iter
    best = state.get("best", {})
    log = RunLog(folder.path, start, options.logger.use_tb_logger)
    report = TrainingReport(log, device, total, state.get("loss_sums", {}))
    logger.info(
        "%s: iterations %d to %d on %s", options.name, start + 1, total, device_name(device)
    )

    for iteration in tqdm(
        range(start + 1, total + 1), options.name, total, initial=start, disable=None
    ):
        micro_batches = list(itertools.islice(batches, options.train.accumulation_steps))
        report.data_arrived()
        torch.manual_seed(options.manual_seed + iteration)
        losses = model.step(iteration - 1, micro_batches)
        report.step_done(losses, sum(len(batch.names) for batch in micro_batches))

        def due(frequency: int, iteration: int = iteration) -> bool:
            return iteration % frequency == 0 or iteration == total

        if due(options.logger.print_freq):
            report.tell(iteration, model.learning_rate)
        if val_source and options.val and due(options.val.val_freq):
            scores = validate(options.val, model, val_source, folder, log, iteration)
            if scores.psnr > best.get("psnr", -math.inf):
                best = {**scores._asdict(), "iteration": iteration}
                folder.save_best(model, options.network_g.arguments(), **best)
        if due(options.logger.save_checkpoint_freq):
            report.require_finite(iteration)
            folder.save(
                model, iteration, options.network_g.arguments(), best=best, loss_sums=report.sums()
            )
        report.leave_out_pause()
    log.close()
    logger.info("finished; weights are in %s", folder.path / "models")


def build_model(options: TrainOptions, device: torch.device) -> RestorationModel:
    """The network, its losses, optimizer and schedule."""
    torch.manual_seed(options.manual_seed)
    network = (
        network_with_weights(options.network_g.arguments(), options.path.pretrain_network_g)
        if options.path.pretrain_network_g
        else build_network(options.network_g.arguments())
    )
    network = network.to(device).to(memory_format=torch.channels_last)
    settings = options.train
    losses = build_losses([loss.model_dump() for loss in settings.losses])
    try_losses(network, losses.to(device), device)
    return MODEL_REGISTRY.entry(options.model_type).cls(
        network,
        losses,
        build_optimizer(settings.optim_g.arguments(), network),
        warmed_up(SCHEDULER_REGISTRY.build(settings.scheduler.arguments()), settings.warmup_iter),
        device,
        precision=settings.precision,
        clip_grad_norm=settings.clip_grad_norm,
        ema_decay=settings.ema_decay,
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


def build_optimizer(arguments: dict[str, Any], network: nn.Module) -> torch.optim.Optimizer:
    """An optimizer of torch.optim for the parameters of `network` that are not frozen."""
    name = arguments.pop("type")
    parameters = [p for p in network.parameters() if p.requires_grad]
    try:
        return getattr(torch.optim, name)(parameters, **arguments)
    except (ValueError, RuntimeError, TypeError) as error:
        raise OptionsError(f"train.optim_g: {name}: {error}") from None


def validation_set(options: TrainOptions) -> ImageSource | None:
    if options.datasets.val is None:
        return None
    source = build_dataset(options.datasets.val.arguments())
    if not source.has_gt:
        raise OptionsError("datasets.val: without clean images there is nothing to validate on")
    return source


def sampling(options: TrainOptions, device: torch.device) -> dict[str, Any]:
    """How training patches are drawn, as arguments of `training_batches`."""
    train_set = options.datasets.train
    return {
        "patches": [PatchStage(**stage.model_dump()) for stage in train_set.patches],
        "seed": options.manual_seed,
        "use_hflip": train_set.use_hflip,
        "use_rot": train_set.use_rot,
        "num_workers": train_set.num_worker_per_gpu,
        "micro_batches": options.train.accumulation_steps,
        "pin_memory": device.type == "cuda",
        "bad_images": BadImages(train_set.bad_image_limit)
        if train_set.on_bad_image == "skip"
        else None,
    }


def state_to_resume(options: TrainOptions, folder: RunFolder, auto: bool) -> dict[str, Any]:
    """The training state to go on from; empty for a new run."""
    file = (folder.latest_state() if auto else None) or options.path.resume_state
    if file is None:
        return {}
    state = load_state(file)
    if state["iteration"] >= options.train.total_iter:
        raise OptionsError(
            f"{file}: has done {state['iteration']} iterations, and train.total_iter is "
            f"{options.train.total_iter}: nothing is left to do"
        )
    return state


def validate(
    options: Validation,
    model: RestorationModel,
    source: ImageSource,
    folder: RunFolder,
    log: RunLog,
    iteration: int,
) -> Scores:
    """Restore and measure the validation set; log all scores and return the first protocol's."""
    restorer = Restorer(
        model.restoring_network, model.device, model.precision, **options.restoring()
    )
    pictures = folder.path / "visualization" if options.save_img else None
    images = evaluate(restorer, source, options.protocols, options.quantize, pictures)
    for protocol in options.protocols:
        psnr, ssim = mean_scores([image.restored[protocol] for image in images])
        log.scalars(iteration, {f"val/{protocol}_psnr": psnr, f"val/{protocol}_ssim": ssim})
        logging.getLogger("basicsr").info(
            "validation at %d: %.4f dB, SSIM %.4f (%s, %d images)",
            *(iteration, psnr, ssim, protocol, len(images)),
        )
    lq, gt = source.sample(0)
    assert gt is not None
    triple = np.concatenate([lq, quantize(restorer(lq)), gt], axis=1)
    log.picture(iteration, "rainy, restored, clean", triple)
    return mean_scores([image.restored[options.protocols[0]] for image in images])


def check(options: TrainOptions) -> None:
    """Build everything that `options` name, read one batch, and print what a step will cost."""
    device = select_device(options.device)
    source = build_dataset(options.datasets.train.arguments())
    model = build_model(options, device)
    batch = next(training_batches(source, start=0, **sampling(options, device)))
    print(f"{options.name}: the options are valid; {len(source)} training images")
    if val_source := validation_set(options):
        val_source.sample(0)
        print(f"validation: {len(val_source)} images")
    print(f"first batch: {tuple(batch.lq.shape)}, {', '.join(batch.names[:4])} ...")
    for stage in options.datasets.train.patches:
        size = fitting_side(model.network, stage.size)
        per_step = stage.batch_size // options.train.accumulation_steps
        cost = network_cost(model.network, (per_step, 3, size, size), options.train.precision)
        memory = training_memory(model.network, cost.activations, options.train.ema_decay > 0)
        print(
            f"patches of {stage.size}, {per_step} at a time: {cost.parameters:,} parameters, "
            f"{cost.macs / 1e9:.2f} GMACs forward, about {memory / 2**30:.2f} GiB to train"
        )


if __name__ == "__main__":
    main()
