"""The decision which weights are the best, and the sample pictures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from runs import NETWORK

from basicsr.data import ImagePair
from basicsr.metrics import get_score
from basicsr.options import TrainOptions
from basicsr.training.validation import Criterion, criterion, sample_picture

PSNR = Criterion("rgb", get_score("rgb/psnr")[1])
NIQE = Criterion("niqe", get_score("niqe")[1])


def test_higher_scores_are_better_where_the_metric_says_so():
    best = PSNR.facts({"rgb": {"psnr": 30.0, "ssim": 0.9}}, 10)
    assert best == {"iteration": 10, "criterion": "rgb/psnr", "psnr": 30.0, "ssim": 0.9}
    assert PSNR.improves({"rgb": {"psnr": 30.1, "ssim": 0.8}}, best)
    assert not PSNR.improves({"rgb": {"psnr": 30.0, "ssim": 0.95}}, best)
    assert not PSNR.improves({"rgb": {"psnr": math.nan, "ssim": 0.95}}, best)


def test_lower_scores_are_better_where_the_metric_says_so():
    best = NIQE.facts({"niqe": {"niqe": 4.0}}, 10)
    assert NIQE.improves({"niqe": {"niqe": 3.9}}, best)
    assert not NIQE.improves({"niqe": {"niqe": 4.1}}, best)


@pytest.mark.parametrize("best", [{}, {"iteration": 5, "criterion": "rgb/ssim", "ssim": 1.0}])
def test_the_first_score_by_a_criterion_is_the_best_so_far(best):
    assert PSNR.improves({"rgb": {"psnr": 3.0}}, best)
    assert not PSNR.improves({"rgb": {"psnr": math.nan}}, best)


@pytest.mark.parametrize(
    ("val", "expected"),
    [
        ({"protocols": ["dtpnet", "rgb"]}, ("dtpnet", "psnr", "higher")),
        ({"protocols": ["dtpnet", "rgb"], "best": "rgb/ssim"}, ("rgb", "ssim", "higher")),
        ({"protocols": ["rgb", "niqe"], "best": "niqe"}, ("niqe", "niqe", "lower")),
    ],
)
def test_the_criterion_of_the_options(val, expected):
    images = {"name": "a", "type": "PairedImageDataset"}
    options = TrainOptions.model_validate(
        {
            "name": "run",
            "model_type": "RestorationModel",
            "network_g": {**NETWORK, "num_blocks": (1,) * 4, "heads": (1,) * 4},
            "datasets": {
                "train": {**images, "patches": [{"size": 8, "batch_size": 1, "iters": 1}]},
                "val": images,
            },
            "train": {
                "total_iter": 1,
                "optim_g": {"type": "Adam"},
                "scheduler": {"type": "MultiStepLR", "milestones": ()},
                "losses": [{"type": "L1Loss"}],
            },
            "val": {"val_freq": 1, **val, "protocols": tuple(val["protocols"])},
        }
    )
    protocol, metric = criterion(options)
    assert (protocol, metric.name, metric.better) == expected


def test_sample_pictures_are_8_bit_rgb():
    """A dual-view 16-bit input shows its left view, a gray image is repeated, floats are scaled."""
    lq = np.arange(6, dtype=np.uint16).reshape(1, 1, 6) * 257
    restored = np.full((1, 1, 1), 0.5, np.float32)
    gt = np.array([[[-0.1, 0.2, 1.3]]], np.float32)
    picture = sample_picture(ImagePair(lq, gt), restored)
    assert picture.dtype == np.uint8
    assert picture.tolist() == [[[0, 1, 2], [128, 128, 128], [0, 51, 255]]]
    assert sample_picture(ImagePair(lq, None), restored).shape == (1, 2, 3)
