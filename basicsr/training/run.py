"""The parts and the state of a training run: how they are built, resumed and saved."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from basicsr.data import BadImages, RestorationDataset, build_dataset
from basicsr.io.state_dicts import listed
from basicsr.models.optimizers import MuonAdamW
from basicsr.models.pretrained import RUNS
from basicsr.models.restoration_model import RestorationModel
from basicsr.options import TrainOptions, save_options
from basicsr.training.build import bad_images, build_model, build_validators
from basicsr.training.fit import choose_accumulation
from basicsr.training.nonfinite import NonFiniteSteps
from basicsr.training.report import TrainingReport
from basicsr.training.resume import require_same_run, run_identity, state_to_resume
from basicsr.training.run_folder import RunFolder
from basicsr.training.run_log import RunLog
from basicsr.training.time_limit import TrainingClock
from basicsr.training.validation import Validator
from basicsr.utils.devices import has_units
from basicsr.utils.distributed import World
from basicsr.utils.errors import NonFiniteError, options_at
from basicsr.utils.interruptions import StopRequest, Watchdog
from basicsr.utils.logs import start_logging
from basicsr.utils.provenance import record_environment

logger = logging.getLogger("basicsr")


@dataclass(frozen=True)
class Process:
    """This process of a run: its device, the other processes, and what can end it early."""

    device: torch.device
    world: World
    stop: StopRequest
    watchdog: Watchdog

    def keep_alive(self) -> None:
        """Reset the watchdog. Raises Stopped if a signal asked to stop."""
        self.watchdog.beat()
        self.stop.check()

    def in_a_hurry(self) -> bool:
        """Reset the watchdog, and return whether a signal asked to stop."""
        self.watchdog.beat()
        return self.stop.name is not None

    def any_stop_requested(self) -> bool:
        """Return whether any process of the run was asked to stop. Collective."""
        return sum(self.world.sum([self.stop.name is not None])) > 0


@dataclass
class Run:
    """Parts and state of a training run.

    Attributes:
        options: the training options.
        process: this process.
        datasets: training and validation sets by their keys in `datasets`.
        validators: one for each validation set; the first one decides which weights are the best.
        model: the network in training.
        folder: `experiments/<name>`.
        report: losses and timings since the last log line.
        nonfinite: counter of skipped steps.
        clock: the time that the run has taken, and its limit.
        bad_images: counter of skipped images, if they are skipped.
        log: metrics and pictures; None in all processes but the main one.
        identity: options and fingerprints of the data sets, to compare with when resumed.
        iteration: number of steps done.
        validation_due: the validation after this iteration is not complete.
        best: iteration and scores of the best weights.
    """

    options: TrainOptions
    process: Process
    datasets: Mapping[str, RestorationDataset]
    validators: list[Validator]
    model: RestorationModel
    folder: RunFolder
    report: TrainingReport
    nonfinite: NonFiniteSteps
    clock: TrainingClock
    bad_images: BadImages | None
    log: RunLog | None = None
    identity: dict[str, Any] = field(default_factory=dict)
    iteration: int = 0
    validation_due: bool = False
    best: dict[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.is_last_iteration and not self.validation_due

    @property
    def is_last_iteration(self) -> bool:
        """Whether no steps are left to take."""
        return self.iteration >= self.options.train.total_iter or self.clock.is_up

    def share_bad_images(self) -> dict[str, str]:
        """Return the images skipped by any process, with the reasons. Collective.

        Raises DataError if they are more than `bad_image_limit`.
        """
        if self.bad_images is None:
            return {}
        for found in self.process.world.gather(self.bad_images.found):
            self.bad_images.note(found.items())
        return dict(self.bad_images.found)

    def require_finite_weights(self) -> None:
        """Raise NonFiniteError, in all processes, if weights or optimizer state are not finite."""
        bad = self.process.world.gather(self.model.non_finite())
        if found := [name for names in bad for name in names]:
            raise NonFiniteError(
                f"iteration {self.iteration}: weights or optimizer state are not finite (NaN or "
                f"inf in {listed(found, 3)}), so the run ends without saving them. Resume from the "
                "newest finite checkpoint with --auto_resume, a lower lr or clip_grad_norm, and "
                "--force for the change"
            )

    def save(self) -> None:
        """Save a checkpoint. Collective. Raises NonFiniteError if it is not finite."""
        self.require_finite_weights()
        state = {
            "iteration": self.iteration,
            "validation_due": self.validation_due,
            "best": self.best,
            "loss_sums": self.report.state_dict(),
            "bad_images": self.share_bad_images(),
            "nonfinite": self.nonfinite.state_dict(),
            "seconds": self.clock.seconds,
            "identity": self.identity,
            **self.model.state_dict(),
        }
        weights = self.model.weights()
        if self.process.world.is_main:
            self.folder.save(state, weights, self.options.network_g.arguments())

    def save_best(self, facts: dict[str, Any]) -> None:
        """Save the present weights as the best ones, with their `facts`. Collective."""
        self.best = facts
        weights = self.model.weights()
        if self.process.world.is_main:
            self.folder.save_best(weights, self.options.network_g.arguments(), **facts)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a training state."""
        self.model.load_state_dict(state)
        self.report.load_state_dict(state["loss_sums"])
        self.nonfinite.load_state_dict(state["nonfinite"])
        if self.bad_images is not None:
            self.bad_images.note(state["bad_images"].items())
        self.clock.seconds = state.get("seconds", 0.0)  # states of earlier versions have none
        self.iteration = state["iteration"]
        self.validation_due = state["validation_due"]
        self.best = state["best"]
        if self.best and not self.folder.has_best_of(self.best["iteration"]):
            logger.warning(
                "the best weights so far, of iteration %d, are not in %s; the best score starts "
                "from the next validation",
                *(self.best["iteration"], self.folder.path),
            )
            self.best = {}


def build_run(options: TrainOptions, process: Process, experiments: Path = RUNS) -> Run:
    """Build all parts of a run. Raises OptionsError or DataError if something is wrong with them.

    Nothing is written yet.
    """
    path = experiments / options.name
    logger_options = options.logger
    validators = build_validators(options, path)
    with options_at("datasets.train"):
        training_set = build_dataset(options.datasets.train.arguments())
    validation_sets = {validator.key: validator.dataset for validator in validators}
    datasets = {"train": training_set, **validation_sets}
    return Run(
        options,
        process,
        datasets,
        validators,
        model=build_model(options, datasets, process.device, process.world),
        folder=RunFolder(path, logger_options.keep_checkpoints, logger_options.keep_every),
        report=TrainingReport(process.device, options.train.total_iter, process.world),
        nonfinite=NonFiniteSteps(path, process.world, options.train.nonfinite_limit),
        clock=TrainingClock(
            options.train.time_limit, process.world, options.train.time_limit_clock
        ),
        bad_images=bad_images(options),
    )


def resume(run: Run, auto_resume: bool, force: bool) -> bool:
    """Lock the run's folder, and load the training state to continue from, if there is one.

    Args:
        run: the run.
        auto_resume: continue from the newest training state in the run's folder.
        force: resume although options or data have changed.

    Returns:
        Whether the run continues in its own folder, instead of a new one.
    """
    world = run.process.world
    if world.is_main:
        run.folder.lock()
    identity = run_identity(run.options, run.datasets)
    world.require_same(identity["data"], "the data sets; give all machines the same images")
    state, in_own_folder = state_to_resume(run.options, run.folder, auto_resume)
    world.require_same(
        state.get("iteration"),
        "the checkpoint to resume from; put experiments/ on a file system that all machines share",
    )
    device = run.process.device
    orthogonalizes = isinstance(run.model.optimizer, MuonAdamW)
    world.require_same(
        (run.model.settings.precision, orthogonalizes and has_units(device, "bf16")),
        "the precision and of Muon's units for bf16; use devices of one kind",
    )
    run.options = choose_accumulation(run.options, run.datasets, device, world, state)
    run.process.watchdog.beat()
    run.identity = {**identity, "options": run.options.model_dump(mode="json")}
    if state:
        require_same_run(state, run.identity, force)
        run.load_state_dict(state)
    return in_own_folder


def open_folder(run: Run, in_own_folder: bool) -> None:
    """Create the run's folder, or reopen it, with its log; only the main process has one."""
    if not run.process.world.is_main:
        return
    archived = None if in_own_folder else run.folder.start_afresh()
    run.folder.drop_after(run.iteration)
    start_logging(run.folder.path / "train.log", run.process.world)
    if archived:
        logger.info("the earlier run of this name is now %s", archived)
    save_options(run.options, run.folder.path / "options.yml")
    record_environment(run.folder.path / "environment.jsonl", run.process.device)
    run.log = RunLog(
        run.folder.path,
        run.iteration,
        run.options.logger.use_tb_logger,
        run.options.logger.wandb_project,
        validated=not run.validation_due,
    )
