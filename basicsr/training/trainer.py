"""A training run: build its parts, resume, open its folder, run."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from basicsr.data import build_dataset, training_batches
from basicsr.data.loader import Batches
from basicsr.options import TrainOptions, save_options
from basicsr.training.build import bad_images, build_model, build_validators, loader_settings
from basicsr.training.nonfinite import NonFiniteSteps
from basicsr.training.report import TrainingReport
from basicsr.training.resume import require_same_run, run_identity, state_to_resume
from basicsr.training.run_folder import RunFolder
from basicsr.training.run_log import RunLog
from basicsr.training.validation import criterion
from basicsr.utils.distributed import World
from basicsr.utils.errors import Stopped
from basicsr.utils.interruptions import StopRequest, Watchdog
from basicsr.utils.logs import start_logging
from basicsr.utils.provenance import device_name, record_environment

logger = logging.getLogger("basicsr")

READ_INTERVAL = {"cpu": 1, "cuda": 10}
"""Steps after which their results are read from the device and a request to stop is shared.

Each reading waits for the GPU; until it, the batches of the steps are kept.
"""


@dataclass(frozen=True)
class Process:
    """This process of a run: its device, the other processes, and what can end it early."""

    device: torch.device
    world: World
    stop: StopRequest
    watchdog: Watchdog


@dataclass
class Progress:
    """Progress of a run, a part of its training state.

    Attributes:
        iteration: number of steps done.
        validation_due: the validation after this iteration was interrupted.
        best: iteration and scores of the best weights.
    """

    iteration: int = 0
    validation_due: bool = False
    best: dict[str, Any] = field(default_factory=dict)


def train(
    options: TrainOptions, process: Process, auto_resume: bool = False, force: bool = False
) -> None:
    """Train as `options` describe, in the folder `experiments/<name>`.

    Args:
        options: the training options.
        process: this process; every process of its world calls this function.
        auto_resume: continue from the newest training state of the folder.
        force: resume although options or data have changed.

    Raises:
        Stopped: after a signal asked to stop, with everything saved.
    """
    start_logging(world=process.world)
    trainer = Trainer(options, process)
    try:
        trainer.resume(auto_resume, force)
        if trainer.finished:
            done = trainer.progress.iteration
            logger.info("%s: all %d iterations are done already", options.name, done)
            return
        trainer.start_loading()
        trainer.open_folder()
        trainer.run()
    finally:
        trainer.folder.unlock()


class Trainer:
    """The parts of a training run, and its loop. `train` calls the methods in their order."""

    def __init__(self, options: TrainOptions, process: Process) -> None:
        self.options, self.process = options, process
        self.dataset = build_dataset(options.datasets.train.arguments())
        self.folder = RunFolder(
            Path("experiments", options.name),
            options.logger.keep_checkpoints,
            options.logger.keep_every,
        )
        self.validators = build_validators(options, self.folder.path)
        self.datasets = {
            "train": self.dataset,
            **{validator.key: validator.dataset for validator in self.validators},
        }
        self.model = build_model(options, self.datasets, process.device, process.world)
        self.progress = Progress()
        self.report = TrainingReport(process.device, options.train.total_iter, process.world)
        self.bad_images = bad_images(options)
        self.nonfinite = NonFiniteSteps(
            self.folder.path, process.world, options.train.nonfinite_limit
        )
        self.identity: dict[str, Any] = {}
        self.in_own_folder = False
        self.batches: Batches
        self.log: RunLog | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        done = self.progress.iteration >= self.options.train.total_iter
        return done and not self.progress.validation_due

    def resume(self, auto_resume: bool, force: bool) -> None:
        """Lock the run's folder, and load the training state to continue from, if there is one."""
        world = self.process.world
        if world.is_main:
            self.folder.lock()
        self.identity = run_identity(self.options, self.datasets)
        world.require_same(self.identity["data"], "the data sets")
        state, self.in_own_folder = state_to_resume(self.options, self.folder, auto_resume)
        world.require_same(
            state.get("iteration"),
            "the checkpoint to go on from; experiments/ must be a folder that all machines share",
        )
        if state:
            require_same_run(state, self.identity, force)
            self._load(state)

    def _load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state)
        self.report.load_state_dict(state["loss_sums"])
        self.nonfinite.load_state_dict(state["nonfinite"])
        if self.bad_images is not None:
            self.bad_images.note(state["bad_images"].items())
        self.progress = Progress(state["iteration"], state["validation_due"], state["best"])
        best = self.progress.best
        if best and not self.folder.has_best_of(best["iteration"]):
            logger.warning(
                "the best weights so far, of iteration %d, are not in %s: the best score is "
                "determined anew",
                *(best["iteration"], self.folder.path),
            )
            self.progress.best = {}

    def start_loading(self) -> None:
        """Create the loader, from the iteration to continue with."""
        self.batches = training_batches(
            self.dataset,
            loader_settings(self.options, self.process.device, self.process.world),
            self.progress.iteration,
            self.bad_images,
        )

    def open_folder(self) -> None:
        """Create the run's folder with its log; only the main process has one."""
        if not self.process.world.is_main:
            return
        archived = None if self.in_own_folder else self.folder.start_afresh()
        self.folder.drop_after(self.progress.iteration)
        start_logging(self.folder.path / "train.log", self.process.world)
        if archived:
            logger.info("the earlier run of this name is now %s", archived)
        save_options(self.options, self.folder.path / "options.yml")
        record_environment(self.folder.path / "environment.jsonl", self.process.device)
        self.log = RunLog(
            self.folder.path,
            self.progress.iteration,
            self.options.logger.use_tb_logger,
            self.options.logger.wandb_project,
            validated=not self.progress.validation_due,
        )

    def run(self) -> None:
        """Train to the end. Raises Stopped, with everything saved, if a signal asked to stop."""
        self._announce()
        completed = False
        try:
            with closing(self.batches):
                if self.progress.validation_due:
                    self.validate()
                for iteration in self._remaining_iterations():
                    self.iterate(iteration)
            completed = True
        except Stopped as stopped:
            self.folder.writer.finish(10.0, self.process.watchdog.beat)
            logger.info("stopped by %s; all is saved, go on with --auto_resume", stopped)
            raise
        finally:
            self.folder.writer.finish(600.0 if completed else 10.0, self._in_a_hurry)
            if self.log is not None:
                self.log.close()
        logger.info("finished; weights are in %s", self.folder.path / "models")

    def _announce(self) -> None:
        first, last = self.progress.iteration + 1, self.options.train.total_iter
        where = device_name(self.process.device)
        if self.process.world.size > 1:
            where = f"{where}, {self.process.world.size} processes"
        logger.info("%s: iterations %d to %d on %s", self.options.name, first, last, where)

    def _remaining_iterations(self) -> Iterable[int]:
        done, total = self.progress.iteration, self.options.train.total_iter
        hidden = None if self.process.world.is_main else True
        iterations = range(done + 1, total + 1)
        return tqdm(iterations, self.options.name, total, initial=done, disable=hidden)

    def iterate(self, iteration: int) -> None:
        """Take a step, and do what is due after it. Raises Stopped after the state is saved."""
        self.step(iteration)
        stopping = self._read_device()
        logging_options = self.options.logger
        if self._due(logging_options.print_freq):
            self._share_bad_images()
            rate, counts = self.model.learning_rate, self.nonfinite.counts()
            self.report.write(self.log, iteration, rate, counts)
            self.folder.writer.retry()
        self.progress.validation_due = self._validation_due()
        if self.progress.validation_due and not stopping:
            try:
                self.validate()
            except Stopped:
                stopping = True
        healthy = self.nonfinite.in_a_row == 0
        if stopping or (healthy and self._due(logging_options.save_checkpoint_freq)):
            self.save()
        if stopping:
            raise Stopped(self.process.stop.name or "a signal to another process")
        self.report.leave_out_pause()

    def step(self, iteration: int) -> None:
        """Take one optimization step, without waiting for the device."""
        micro_batches = list(itertools.islice(self.batches, self.options.train.accumulation_steps))
        self.report.data_arrived()
        torch.manual_seed(self.options.manual_seed + iteration)
        losses, finite = self.model.optimize_parameters(iteration - 1, micro_batches)
        self.nonfinite.note(iteration, finite, micro_batches)
        self.report.step_done(losses, finite, sum(len(batch.names) for batch in micro_batches))
        self.progress.iteration = iteration
        self.process.watchdog.beat()

    def _read_device(self) -> bool:
        """Read the results of the last steps where needed; return whether the run is to stop.

        All processes read after the same steps, as they exchange requests to stop then.
        """
        world, stop = self.process.world, self.process.stop
        frequencies = (
            READ_INTERVAL[self.process.device.type],
            self.options.logger.print_freq,
            self.options.logger.save_checkpoint_freq,
        )
        asked_alone = world.size == 1 and stop.name is not None
        if asked_alone or self._validation_due() or any(map(self._due, frequencies)):
            self.nonfinite.read()
            return sum(world.sum([stop.name is not None])) > 0
        return False

    def _due(self, frequency: int) -> bool:
        iteration = self.progress.iteration
        return iteration % frequency == 0 or iteration == self.options.train.total_iter

    def _validation_due(self) -> bool:
        return self.options.val is not None and self._due(self.options.val.val_freq)

    def validate(self) -> None:
        """Measure every validation set; keep the weights with the best score of the first one.

        Raises Stopped if the run is to stop.
        """
        iteration = self.progress.iteration
        scores = [
            validator(self.model, iteration, self.log, self._before_each_image)
            for validator in self.validators
        ]
        decisive = criterion(self.options)
        if decisive.improves(scores[0], self.progress.best):
            self.progress.best = decisive.facts(scores[0], iteration)
            weights = self.model.weights()
            if self.process.world.is_main:
                network = self.options.network_g.arguments()
                self.folder.save_best(weights, network, **self.progress.best)
        self.progress.validation_due = False

    def _before_each_image(self) -> None:
        self.process.watchdog.beat()
        self.process.stop.check()

    def _in_a_hurry(self) -> bool:
        """Return whether the end of the run should not wait long for room on the disk."""
        self.process.watchdog.beat()
        return self.process.stop.name is not None

    def _share_bad_images(self) -> dict[str, str]:
        """Return the images skipped so far by any process; the limit is for all of them."""
        if self.bad_images is None:
            return {}
        for found in self.process.world.gather(self.bad_images.found):
            self.bad_images.note(found.items())
        return dict(self.bad_images.found)

    def save(self) -> None:
        """Save everything that the rest of the run depends on."""
        state = {
            "iteration": self.progress.iteration,
            "validation_due": self.progress.validation_due,
            "best": self.progress.best,
            "loss_sums": self.report.state_dict(),
            "bad_images": self._share_bad_images(),
            "nonfinite": self.nonfinite.state_dict(),
            "identity": self.identity,
            **self.model.state_dict(),
        }
        weights = self.model.weights()
        if self.process.world.is_main:
            self.folder.save(state, weights, self.options.network_g.arguments())
