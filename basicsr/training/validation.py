"""Restoring and measuring the validation sets while training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from basicsr.archs import RestorationNetwork, build_network
from basicsr.data import ImagePair, RestorationDataset
from basicsr.evaluation.evaluate import SaveImage, evaluate, pictures_in
from basicsr.inference.restorer import Restorer, RestorerSettings
from basicsr.io.images import to_levels
from basicsr.metrics import Metric, get_protocol, get_score
from basicsr.models.restoration_model import RestorationModel
from basicsr.options import TrainOptions
from basicsr.training.run_log import RunLog
from basicsr.utils.errors import NonFiniteError

logger = logging.getLogger("basicsr")

MeanScores = Mapping[str, Mapping[str, float]]
"""Means over a data set: protocol -> metric -> value"""


class Criterion(NamedTuple):
    """The score of the first validation set that decides which weights are the best."""

    protocol: str
    metric: Metric

    @property
    def name(self) -> str:
        """Name as in `val.best`."""
        return f"{self.protocol}/{self.metric.name}"

    def improves(self, scores: MeanScores, best: Mapping[str, Any]) -> bool:
        """Return whether `scores` are better than the scores in `best`, the `facts` so far."""
        same = best.get("criterion") == self.name  # otherwise there is no best score to compare
        return self.metric.is_better(
            scores[self.protocol][self.metric.name], best[self.metric.name] if same else None
        )

    def facts(self, scores: MeanScores, iteration: int) -> dict[str, Any]:
        """Return what is saved with the best weights."""
        return {"iteration": iteration, "criterion": self.name, **scores[self.protocol]}


class Validator:
    """Measures the network in training on one validation set.

    The processes of the run share its images.

    Args:
        key: name of the set in the option file: "val", "val_2", ...
        dataset: the validation set.
        options: the training options.
        folder: the run's folder. Restored images are written to `visualization` in it, if
            `val.save_img` asks for them and as long as the disk has room.
    """

    def __init__(
        self, key: str, dataset: RestorationDataset, options: TrainOptions, folder: Path
    ) -> None:
        assert options.val is not None
        self.key = key
        self.dataset = dataset
        self.settings = options.val
        self.network_options = options.network_g.arguments()
        self.protocols = options.protocols_of(key)
        pictures = folder / "visualization"
        self.save_image = _unless_disk_is_full(
            pictures_in(pictures if key == "val" else pictures / key, dataset)
        )

    def __call__(
        self,
        model: RestorationModel,
        iteration: int,
        log: RunLog | None,
        before_each: Callable[[], None],
    ) -> MeanScores | None:
        """Restore and measure the validation set, and log the mean scores. Collective.

        If a restored image is not finite, there are no scores; a warning names the image.

        Args:
            model: the model in training.
            iteration: number of steps done.
            log: the run's log; None in all processes but the main one.
            before_each: called before each image; may raise Stopped.
        """
        settings = self.settings
        restorer_settings = RestorerSettings(model.settings.precision, **settings.restoring())
        restorer = Restorer(self._network(model), model.device, restorer_settings)
        try:
            images = evaluate(
                restorer,
                self.dataset,
                self.protocols,
                settings.quantize,
                self.save_image if settings.save_img else None,
                model.world,
                before_each,
            )
        except NonFiniteError as error:
            logger.warning("validation at %d: %s: no score: %s", iteration, self.key, error)
            return None
        means = {
            protocol: get_protocol(protocol).summarize([each.restored[protocol] for each in images])
            for protocol in self.protocols
        }
        if log is not None:
            self._log(log, iteration, means, len(images))
            pair = self.dataset.sample(0)
            picture = sample_picture(pair, restorer(pair.lq))
            suffix = "" if self.key == "val" else f"_{self.key}"
            log.picture(iteration, f"{self.key}/lq, restored, gt", picture, suffix)
        return means

    def _log(self, log: RunLog, iteration: int, means: MeanScores, images: int) -> None:
        for protocol, scores in means.items():
            values = {f"{self.key}/{protocol}_{metric}": value for metric, value in scores.items()}
            log.scalars(iteration, values)
            logger.info(
                "validation at %d: %s (%s: %s, %d images)",
                iteration,
                ", ".join(f"{metric} {value:.4f}" for metric, value in scores.items()),
                *(self.key, protocol, images),
            )

    def _network(self, model: RestorationModel) -> RestorationNetwork:
        """Return the network to validate, complete in every process."""
        if not model.sharded:
            return model.inference_network
        network = build_network(self.network_options)
        network.load_state_dict(model.weights())
        return network


def criterion(options: TrainOptions) -> Criterion:
    """Return the score that decides which weights are the best: `val.best`, or the default."""
    assert options.val is not None
    protocols = options.protocols_of("val")
    protocol, metric = get_score(options.val.best or protocols[0])
    return Criterion(protocol.name, metric)


def sample_picture(pair: ImagePair, restored: np.ndarray) -> np.ndarray:
    """Return degraded image, restored image and ground truth side by side, as 8-bit RGB."""
    images = [pair.lq, restored] if pair.gt is None else [pair.lq, restored, pair.gt]
    return np.concatenate([_eight_bit_rgb(image) for image in images], axis=1)


def _eight_bit_rgb(image: np.ndarray) -> np.ndarray:
    """Show an H x W x C image as 8-bit RGB: gray repeated, or the first three channels."""
    channels = image.shape[2]
    image = image[:, :, :3] if channels >= 3 else image[:, :, :1].repeat(3, axis=2)
    if image.dtype == np.uint16:
        image = image.astype(np.float32) / 65535
    return image if image.dtype == np.uint8 else to_levels(image.clip(0, 1), np.uint8)


def _unless_disk_is_full(save_image: SaveImage) -> SaveImage:
    """Warn if an image cannot be written, instead of ending the run."""

    def attempt(name: str, image: np.ndarray, pair: ImagePair) -> None:
        try:
            save_image(name, image, pair)
        except OSError as error:
            logger.warning("the restored image of %s is not saved: %s", name, error.strerror)

    return attempt
