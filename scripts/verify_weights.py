"""Measure converted weights and compare the scores with the published ones.

    python scripts/verify_weights.py pretrained_models/PReNet_Rain100L.safetensors \
        --dataroot datasets/Rain100L

Restores the whole data set and measures it under the protocol and with the 8-bit conversion that
the file's metadata names. Exit code 1 if a measured value is off by more than half of the last
printed digit plus one unit of the last digit that tables show (0.01 dB for PSNR).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from basicsr.data import LAYOUTS, build_dataset
from basicsr.evaluation.evaluate import evaluate
from basicsr.evaluation.published import PublishedScore
from basicsr.inference.restorer import Restorer
from basicsr.io.checkpoints import Weights
from basicsr.metrics import get_protocol
from basicsr.models.pretrained import saved_network
from basicsr.utils.cli import add_device, command, script_parser
from basicsr.utils.devices import select_device
from basicsr.utils.errors import CheckpointError, OptionsError


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    network, weights = saved_network(options.file)
    score = chosen_score(options.file, weights, options.dataset)
    layout = options.layout or score.dataset
    dataset = build_dataset(dataset_options(options.dataroot, layout))
    restorer = Restorer(network, select_device(options.device))
    scores = evaluate(restorer, dataset, [score.protocol], score.quantize)
    protocol = get_protocol(score.protocol)
    measured = protocol.summarize([image.restored[score.protocol] for image in scores])

    facts = weights.facts
    origin = f"{facts.get('train_set', 'unknown data')}, from {facts.get('source', 'unknown')}"
    print(f"{weights.network['type']} trained on {origin}")
    print(f"{score.dataset}, {len(scores)} images, {score.protocol}, quantize: {score.quantize}")
    for name, tolerance in score.tolerances().items():
        label, printed = protocol.metric(name).label, score.scores[name]
        print(
            f"  {label}  published {printed}  measured {measured[name]:.4f}  "
            f"tolerance {tolerance:g}"
        )
    if not score.agrees_with(measured):
        print("the measured score is not the published one")
        sys.exit(1)
    print("the published score is confirmed")


def chosen_score(file: Path, weights: Weights, dataset: str | None) -> PublishedScore:
    """Return the published score of `dataset`, or the only one of the file.

    Raises CheckpointError if the file has none, OptionsError if it has others.
    """
    try:
        listed = [PublishedScore.from_facts(each) for each in weights.facts.get("scores", [])]
        scores = {score.dataset: score for score in listed}
        for score in listed:
            score.tolerances()  # raises for numbers that are none
    except (TypeError, AttributeError, KeyError, ArithmeticError):
        raise CheckpointError(
            f"{file}: its metadata have scores that are none; convert or publish the file again"
        ) from None
    if not scores:
        raise CheckpointError(f"{file}: its metadata has no published score to compare with")
    if dataset is None and len(scores) == 1:
        return next(iter(scores.values()))
    if dataset not in scores:
        given = f"there is no score of {dataset}" if dataset else "which data set? Add --dataset"
        raise OptionsError(f"{file}: {given}; it has scores of {', '.join(scores)}")
    return scores[dataset]


def dataset_options(dataroot: str, layout: str) -> dict[str, Any]:
    """Return the options of the test set. Raises OptionsError for an unknown layout."""
    if layout not in LAYOUTS:
        raise OptionsError(f"'{layout}' names no layout; give --layout: {', '.join(LAYOUTS)}")
    return {"type": "PairedImageDataset", "dataroot": dataroot, "layout": layout}


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    parser.add_argument("file", type=Path, metavar="FILE.safetensors")
    parser.add_argument("--dataroot", required=True, metavar="DIR", help="the test set")
    parser.add_argument("--dataset", metavar="NAME", help="score to verify, if there are several")
    parser.add_argument(
        "--layout",
        choices=LAYOUTS,
        metavar="NAME",
        help="layout of the test set (default: the score's data set)",
    )
    add_device(parser)
    return parser


if __name__ == "__main__":
    main()
