"""Restoring and measuring the validation set while training."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import nn

from basicsr.archs import build_network
from basicsr.data import ImagePair, RestorationDataset
from basicsr.evaluation.evaluate import Keep, evaluate, mean_scores, pictures_in
from basicsr.inference.restorer import Restorer, RestorerSettings
from basicsr.io.images import to_levels
from basicsr.metrics import Scores
from basicsr.models.restoration_model import RestorationModel
from basicsr.options import TrainOptions
from basicsr.training.run_log import RunLog

logger = logging.getLogger("basicsr")


class Validator:
    """Measures the network in training on `source`; the run's processes share the images.

    Pictures go to `folder` where `val.save_img` asks for them, as long as the disk takes them.
    """

    def __init__(self, options: TrainOptions, source: RestorationDataset, folder: Path) -> None:
        assert options.val is not None
        self.network = options.network_g.arguments()
        self.settings = options.val
        self.source = source
        self.keep = _unless_disk_is_full(pictures_in(folder, source))

    def __call__(
        self,
        model: RestorationModel,
        iteration: int,
        log: RunLog | None,
        before_each: Callable[[], None],
    ) -> Scores:
        """Log all scores, and return the mean ones of the first protocol.

        `before_each` image may raise Stopped. Collective.
        """
        settings = self.settings
        restoring = RestorerSettings(precision=model.precision, **settings.restoring())
        restorer = Restorer(self._network(model), model.device, restoring)
        images = evaluate(
            restorer,
            self.source,
            settings.protocols,
            settings.quantize,
            self.keep if settings.save_img else None,
            model.world,
            before_each,
        )
        means = {
            protocol: mean_scores([image.restored[protocol] for image in images])
            for protocol in settings.protocols
        }
        if log is not None:
            for protocol, (psnr, ssim) in means.items():
                log.scalars(iteration, {f"val/{protocol}_psnr": psnr, f"val/{protocol}_ssim": ssim})
                logger.info(
                    "validation at %d: %.4f dB, SSIM %.4f (%s, %d images)",
                    *(iteration, psnr, ssim, protocol, len(images)),
                )
            log.picture(iteration, "rainy, restored, clean", self._sample(restorer))
        return means[settings.protocols[0]]

    def _network(self, model: RestorationModel) -> nn.Module:
        """The network to validate, whole in every process."""
        if not model.sharded:
            return model.restoring_network
        network = build_network(self.network)
        network.load_state_dict(model.weights())
        return network

    def _sample(self, restorer: Restorer) -> np.ndarray:
        lq, gt = self.source.sample(0)
        assert gt is not None
        return np.concatenate([lq, to_levels(restorer(lq), np.uint8), gt], axis=1)


def _unless_disk_is_full(keep: Keep) -> Keep:
    def attempt(name: str, image: np.ndarray, pair: ImagePair) -> None:
        try:
            keep(name, image, pair)
        except OSError as error:
            logger.warning("the picture of %s is not saved: %s", name, error.strerror)

    return attempt
