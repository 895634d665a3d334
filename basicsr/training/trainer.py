"""A training run: its steps, and what is due between them."""

from __future__ import annotations

import itertools
import logging
import math
from contextlib import closing
from pathlib import Path

import torch
from tqdm import tqdm

from basicsr.data import build_dataset, training_batches
from basicsr.options import TrainOptions, save_options
from basicsr.training.build import bad_images, build_model, sampling, validation_set
from basicsr.training.nonfinite import NonFiniteSteps
from basicsr.training.resume import require_same_run, run_identity, state_to_resume
from basicsr.training.run_folder import RunFolder
from basicsr.training.run_log import RunLog, TrainingReport
from basicsr.training.validation import Validator
from basicsr.utils.distributed import World
from basicsr.utils.errors import Stopped
from basicsr.utils.interruptions import StopRequest, Watchdog
from basicsr.utils.logs import start_logging
from basicsr.utils.provenance import device_name, record_environment

logger = logging.getLogger("basicsr")


class Trainer:
    """The training that `options` describe, from its beginning or from a training state.

    Every process of the `world` has one; the main one writes `experiments/<name>`.
    """

    def __init__(
        self,
        options: TrainOptions,
        device: torch.device,
        world: World,
        stop: StopRequest,
        watchdog: Watchdog,
        auto_resume: bool = False,
        force: bool = False,
    ) -> None:
        self.options, self.device, self.world = options, device, world
        self.stop, self.watchdog = stop, watchdog
        start_logging(world=world)
        source = build_dataset(options.datasets.train.arguments())
        val_source = validation_set(options)
        self.model = build_model(options, device, world)
        self.folder = RunFolder(
            Path("experiments", options.name),
            options.logger.keep_checkpoints,
            options.logger.keep_every,
        )
        self.validator = (
            Validator(options, val_source, self.folder.path / "visualization")
            if val_source
            else None
        )
        if world.is_main:
            self.folder.lock()
        self.identity = run_identity(options, source, val_source)
        world.require_same(self.identity["data"], "the data sets")
        state, own = state_to_resume(options, self.folder, auto_resume)
        world.require_same(
            state.get("iteration"),
            "the checkpoint to go on from; experiments/ must be a folder that all machines share",
        )
        if state:
            require_same_run(state, self.identity, force)
            self.model.load_state_dict(state)
        self.start = state.get("iteration", 0)
        self.validation_due = state.get("validation_due", False)
        self.best = state.get("best", {})
        if self.best and not self.folder.has_best_of(self.best["iteration"]):
            logger.warning(
                "the best weights so far, of iteration %d, are not in %s: best is counted anew",
                *(self.best["iteration"], self.folder.path),
            )
            self.best = {}
        self.bad_images = bad_images(options)
        self.nonfinite = NonFiniteSteps(
            self.folder.path, world, options.train.nonfinite_limit, state.get("nonfinite", {})
        )
        self.batches = training_batches(
            source,
            start=self.start,
            bad_images=self.bad_images,
            **sampling(options, device, world),
        )
        self.finished = self.start >= options.train.total_iter and not self.validation_due
        self.log = self._open_folder(own) if world.is_main and not self.finished else None
        self.report = TrainingReport(
            self.log, device, options.train.total_iter, state.get("loss_sums", {}), world
        )
        if self.bad_images is not None:
            self.bad_images.note(state.get("bad_images", {}).items())

    def _open_folder(self, resumed: bool) -> RunLog:
        options = self.options
        archived = None if resumed else self.folder.start_afresh()
        self.folder.drop_after(self.start)
        start_logging(self.folder.path / "train.log", self.world)
        if archived:
            logger.info("the earlier run of this name is now %s", archived)
        save_options(options, self.folder.path / "options.yml")
        record_environment(self.folder.path / "environment.jsonl", self.device)
        return RunLog(
            self.folder.path,
            self.start,
            options.logger.use_tb_logger,
            options.logger.wandb_project,
            validated=not self.validation_due,
        )

    def run(self) -> None:
        """Train to the end. Raises Stopped, with all saved, where a signal asked to stop."""
        total = self.options.train.total_iter
        if self.finished:
            logger.info("%s: all %d iterations are done already", self.options.name, self.start)
            return
        logger.info(
            "%s: iterations %d to %d on %s%s",
            *(self.options.name, self.start + 1, total, device_name(self.device)),
            f", {self.world.size} processes" if self.world.size > 1 else "",
        )
        done = False
        try:
            with closing(self.batches):
                if self.validation_due:
                    self.validate(self.start)
                progress = tqdm(
                    range(self.start + 1, total + 1),
                    *(self.options.name, total),
                    initial=self.start,
                    disable=None if self.world.is_main else True,
                )
                for iteration in progress:
                    self.iterate(iteration)
            done = True
        except Stopped as stopped:
            self.folder.writer.finish(10.0, self.watchdog.beat)
            logger.info("stopped by %s; all is saved, go on with --auto_resume", stopped)
            raise
        finally:
            self.folder.writer.finish(600.0 if done else 10.0, self._hurried)
            if self.log is not None:
                self.log.close()
        logger.info("finished; weights are in %s", self.folder.path / "models")

    def iterate(self, iteration: int) -> None:
        """A step, and what is due after it. Raises Stopped, once its state is saved."""

        def due(frequency: int) -> bool:
            return iteration % frequency == 0 or iteration == self.options.train.total_iter

        stopping = self.step(iteration)
        if due(self.options.logger.print_freq):
            self._share_bad_images()
            self.report.tell(iteration, self.model.learning_rate, **self.nonfinite.counts())
            self.folder.writer.retry()
        validation_due = self.options.val is not None and due(self.options.val.val_freq)
        if validation_due and not stopping:
            try:
                self.validate(iteration)
                validation_due = False
            except Stopped:
                stopping = True
        healthy = self.nonfinite.in_a_row == 0
        if stopping or (healthy and due(self.options.logger.save_checkpoint_freq)):
            self.save(iteration, validation_due)
        if stopping:
            raise Stopped(self.stop.name or "a signal to another process")
        self.report.leave_out_pause()

    def step(self, iteration: int) -> bool:
        """One optimisation step. Returns whether a process of the run was asked to stop."""
        micro_batches = list(itertools.islice(self.batches, self.options.train.accumulation_steps))
        self.report.data_arrived()
        torch.manual_seed(self.options.manual_seed + iteration)
        losses, finite = self.model.compute_gradients(iteration - 1, micro_batches)
        failures, stops = self.world.sum([not finite, self.stop.name is not None])
        self.nonfinite.note(iteration, failures == 0, micro_batches)
        if failures == 0:
            self.model.update()
        images = sum(len(batch.names) for batch in micro_batches)
        self.report.step_done(losses if failures == 0 else {}, images)
        self.watchdog.beat()
        return stops > 0

    def validate(self, iteration: int) -> None:
        """Measure the validation set; keep the weights with the best PSNR of its first protocol.

        Raises Stopped where the run is to stop.
        """
        assert self.validator is not None
        score = self.validator(self.model, iteration, self.log, self._before_each_image)
        if score.psnr > self.best.get("psnr", -math.inf):
            self.best = {**score._asdict(), "iteration": iteration}
            weights = self.model.weights()
            if self.world.is_main:
                self.folder.save_best(weights, self.options.network_g.arguments(), **self.best)

    def _before_each_image(self) -> None:
        self.watchdog.beat()
        self.stop.check()

    def _hurried(self) -> bool:
        """Whether the end of the run should not wait long for room on the disk."""
        self.watchdog.beat()
        return self.stop.name is not None

    def _share_bad_images(self) -> dict[str, str]:
        """The images skipped so far by any process; the limit is for all of them together."""
        if self.bad_images is None:
            return {}
        for found in self.world.gather(self.bad_images.found):
            self.bad_images.note(found.items())
        return dict(self.bad_images.found)

    def save(self, iteration: int, validation_due: bool) -> None:
        """Save all that the rest of the run depends on."""
        state = {
            "iteration": iteration,
            "validation_due": validation_due,
            "best": self.best,
            "loss_sums": self.report.sums(),
            "bad_images": self._share_bad_images(),
            "nonfinite": self.nonfinite.state(),
            "identity": self.identity,
            **self.model.state_dict(),
        }
        weights = self.model.weights()
        if self.world.is_main:
            self.folder.save(state, weights, self.options.network_g.arguments())
