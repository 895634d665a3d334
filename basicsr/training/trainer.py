"""The training loop: steps, and what is due between them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import torch
from tqdm import tqdm

from basicsr.data import training_batches
from basicsr.data.loader import Batches
from basicsr.models.pretrained import RUNS
from basicsr.options import TrainOptions
from basicsr.training.build import loader_settings
from basicsr.training.run import Process, Run, build_run, open_folder, resume
from basicsr.training.validation import criterion
from basicsr.utils.errors import Stopped
from basicsr.utils.logs import start_logging
from basicsr.utils.provenance import device_name

logger = logging.getLogger("basicsr")

READ_INTERVAL = {"cpu": 1, "cuda": 10}
"""Steps after which their results are read from the device and a request to stop is shared.

Each reading waits for the GPU; until it, the batches of the steps are kept.
"""


def train(
    options: TrainOptions,
    process: Process,
    auto_resume: bool = False,
    force: bool = False,
    experiments: Path = RUNS,
) -> None:
    """Train as `options` describe, in the folder `experiments/<name>`.

    Args:
        options: the training options.
        process: this process; every process of its world calls this function.
        auto_resume: continue from the newest training state in the folder.
        force: resume although options or data have changed.
        experiments: folder in which the run's folder is made.

    Raises:
        Stopped: after a signal asked to stop, with everything saved.
    """
    start_logging(world=process.world)
    run = build_run(options, process, experiments)
    try:
        in_own_folder = resume(run, auto_resume, force)
        if run.finished:
            logger.info("%s: is complete, after %d iterations", options.name, run.iteration)
            return
        settings = loader_settings(run.options, process.device, process.world)
        batches = training_batches(run.datasets["train"], settings, run.iteration, run.bad_images)
        open_folder(run, in_own_folder)
        with process.stop:  # until here, there is nothing to save
            Trainer(run, batches).run_to_end()
    finally:
        run.folder.unlock()


class Trainer:
    """Loop over the remaining iterations of a run.

    Args:
        run: the run, built and resumed.
        batches: its training batches, from the next iteration on.
    """

    def __init__(self, run: Run, batches: Batches) -> None:
        self.run = run
        self.batches = batches

    def run_to_end(self) -> None:
        """Train to the end. Raises Stopped, with everything saved, if a signal asked to stop."""
        self._announce()
        process, folder = self.run.process, self.run.folder
        self.run.clock.start()
        completed = False
        try:
            with closing(self.batches):
                if self.run.validation_due:
                    self.validate()
                for iteration in self._remaining_iterations():
                    self.iterate(iteration)
                    if self.run.is_last_iteration:
                        break
            completed = True
        except Stopped as stopped:
            folder.writer.finish(10.0, process.watchdog.beat)
            logger.info("stopped by %s; everything is saved, resume with --auto_resume", stopped)
            raise
        finally:
            folder.writer.finish(600.0 if completed else 10.0, process.in_a_hurry)
            if self.run.log is not None:
                self.run.log.close()
        logger.info("finished; weights are in %s", folder.path / "models")

    def _announce(self) -> None:
        process, options = self.run.process, self.run.options
        first, last = self.run.iteration + 1, options.train.total_iter
        where = f"{device_name(process.device)}, in {self.run.model.settings.precision}"
        if process.world.size > 1:
            where = f"{where}, {process.world.size} processes"
        if options.train.time_limit is not None:
            left = options.train.time_limit - self.run.clock.seconds
            where = f"{where}, for at most {left:.0f} s"
            if options.train.time_limit_clock == "cpu":
                where = f"{where} of processor time"
        logger.info("%s: iterations %d to %d on %s", options.name, first, last, where)

    def _remaining_iterations(self) -> Iterable[int]:
        name, total = self.run.options.name, self.run.options.train.total_iter
        done, hidden = self.run.iteration, None if self.run.process.world.is_main else True
        last = done if self.run.is_last_iteration else total
        return tqdm(range(done + 1, last + 1), name, total, initial=done, disable=hidden)

    def iterate(self, iteration: int) -> None:
        """Take a step, and do what is due after it. Raises Stopped after the state is saved."""
        run, frequencies = self.run, self.run.options.logger
        self.step(iteration)
        stopping = self._read_device()
        if self._due(frequencies.print_freq):
            run.share_bad_images()
            run.report.write(run.log, iteration, run.model.learning_rate, run.nonfinite.counts())
            run.folder.writer.retry()
        run.validation_due = self._validation_due()
        if run.validation_due and not stopping:
            try:
                self.validate()
            except Stopped:
                stopping = True
        last = iteration == run.options.train.total_iter
        healthy = run.nonfinite.in_a_row == 0 or last
        if stopping or (healthy and self._due(frequencies.save_checkpoint_freq)):
            run.save()
        if stopping:
            raise Stopped(run.process.stop.name or "a signal to another process")
        run.report.leave_out_pause()

    def step(self, iteration: int) -> None:
        """Take one optimization step, without waiting for the device."""
        run, options = self.run, self.run.options
        micro_batches = list(itertools.islice(self.batches, options.accumulation_steps))
        run.report.data_arrived()
        torch.manual_seed(options.manual_seed + iteration)
        scheduled = run.clock.scheduled(iteration - 1, options.train.total_iter)
        step = run.model.optimize_parameters(scheduled, micro_batches)
        run.nonfinite.note(iteration, step.finite | step.rescaled, micro_batches)
        images = sum(len(batch.names) for batch in micro_batches)
        run.report.step_done(step.losses, step.finite, images)
        run.iteration = iteration
        run.process.watchdog.beat()

    def _read_device(self) -> bool:
        """Read the results of the last steps if it is time; return whether the run is to stop.

        All processes read after the same steps, as they exchange requests to stop then.
        """
        run, process = self.run, self.run.process
        frequencies = (
            READ_INTERVAL[process.device.type],
            run.options.logger.print_freq,
            run.options.logger.save_checkpoint_freq,
        )
        asked_alone = process.world.size == 1 and process.stop.name is not None
        if not (asked_alone or self._validation_due() or any(map(self._due, frequencies))):
            return False
        run.nonfinite.read()
        run.clock.read()
        return process.any_stop_requested()

    def _due(self, frequency: int) -> bool:
        iteration = self.run.iteration
        return iteration % frequency == 0 or self.run.is_last_iteration

    def _validation_due(self) -> bool:
        validation = self.run.options.val
        return validation is not None and self._due(validation.val_freq)

    def validate(self) -> None:
        """Measure every validation set; save the weights if they are the best so far.

        Raises:
            Stopped: the run is to stop.
            NonFiniteError: the weights are not finite.
        """
        run = self.run
        run.require_finite_weights()
        scores = [
            validator(run.model, run.iteration, run.log, run.process.keep_alive)
            for validator in run.validators
        ]
        decisive = criterion(run.options)
        first = scores[0]
        if first is not None and decisive.improves(first, run.best):
            run.save_best(decisive.facts(first, run.iteration))
        run.validation_due = False
