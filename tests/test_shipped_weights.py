"""The weights in pretrained_models/: their metadata, and that they remove rain."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from basicsr.data import render_rain
from basicsr.evaluation.published import PublishedScore
from basicsr.io.checkpoints import load_weights
from basicsr.metrics import measure
from basicsr.models.pretrained import saved_network, weights_file
from basicsr.options import TrainOptions
from basicsr.restore import DEFAULT_WEIGHTS, restore
from basicsr.utils.files import sha256

SHIPPED = [DEFAULT_WEIGHTS, "DTPNet-T_RainTrainL"]


@pytest.mark.parametrize("name", SHIPPED)
def test_metadata_describe_the_training_run(name):
    facts = saved_network(weights_file(name))[1].facts
    options = TrainOptions.model_validate_json(json.dumps(facts["options"]))
    if options.train.time_limit is None:
        assert facts["iteration"] == options.train.total_iter
    else:  # the time was up before
        assert 0 < facts["iteration"] <= options.train.total_iter
    assert facts["seed"] == options.manual_seed
    assert facts["train_set"] == options.datasets.train.name
    assert facts["trained_with"]["torch"]
    scores = [PublishedScore.from_facts(each) for each in facts["scores"]]
    assert (scores[0].dataset, scores[0].protocol) == ("Rain100L", "matlab_y")


@pytest.mark.parametrize("name", SHIPPED)
def test_the_page_has_the_hash_and_the_file_its_digest(name, caplog):
    file = weights_file(name)
    page = (Path(__file__).parents[1] / "pretrained_models" / "README.md").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` ")]
    assert f"`{sha256(file)[:8]}...`" in row
    with caplog.at_level(logging.INFO, logger="basicsr"):
        load_weights(file)
    assert not caplog.records  # "not verified", of files without a digest


@pytest.mark.parametrize("rain", ["light", "heavy", "mixed", "misty"])
def test_every_type_of_rain_is_removed_from_a_photograph(rain, device):
    clean = skimage.data.astronaut()[:192, 128:320]
    rainy = render_rain(clean, rain, np.random.default_rng(4))
    before, after = (
        measure(image, clean, "matlab_y")["psnr"]
        for image in (rainy, restore(rainy, device=device.type))
    )
    assert after > before + 2
