"""Measure converted weights again and compare with the score that their authors published.

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
from basicsr.evaluation.evaluate import evaluate, mean_scores
from basicsr.evaluation.published import PublishedScore
from basicsr.inference.restorer import Restorer
from basicsr.io.checkpoints import Weights
from basicsr.metrics import get_protocol
from basicsr.models.pretrained import saved_network
from basicsr.utils.cli import command
from basicsr.utils.devices import select_device
from basicsr.utils.errors import CheckpointError, OptionsError


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    network, weights = saved_network(options.file)
    score = chosen_score(options.file, weights, options.dataset)
    source = build_dataset(data_set(options.dataroot, options.layout or score.dataset))
    restorer = Restorer(network, select_device(options.device))
    scores = evaluate(restorer, source, [score.protocol], score.quantize)
    measured = mean_scores([image.restored[score.protocol] for image in scores])

    facts = weights.facts
    print(f"{weights.network['type']} trained on {facts['train_set']}, from {facts['source']}")
    print(f"{score.dataset}, {len(scores)} images, {score.protocol}, quantize: {score.quantize}")
    for name, tolerance in score.tolerances().items():
        label, printed = get_protocol(score.protocol).metric(name).label, score.scores[name]
        print(
            f"  {label}  published {printed}  measured {measured[name]:.4f}  "
            f"tolerance {tolerance:g}"
        )
    if not score.agrees_with(measured):
        print("the measured score is not the published one")
        sys.exit(1)
    print("the published score is confirmed")


def chosen_score(file: Path, weights: Weights, dataset: str | None) -> PublishedScore:
    """The published score of `dataset`, or the only one that there is.

    Raises CheckpointError where the file has none, OptionsError where it has others.
    """
    scores = {
        each["dataset"]: PublishedScore.from_facts(each) for each in weights.facts.get("scores", [])
    }
    if not scores:
        raise CheckpointError(f"{file}: its metadata has no published score to compare with")
    if dataset is None and len(scores) == 1:
        return next(iter(scores.values()))
    if dataset not in scores:
        given = f"there is no score of {dataset}" if dataset else "which data set? Add --dataset"
        raise OptionsError(f"{file}: {given}; it has scores of {', '.join(scores)}")
    return scores[dataset]


def data_set(dataroot: str, layout: str) -> dict[str, Any]:
    """Raises OptionsError where the layout's name is none."""
    if layout not in LAYOUTS:
        raise OptionsError(f"'{layout}' names no layout; give --layout: {', '.join(LAYOUTS)}")
    return {"type": "PairedImageDataset", "dataroot": dataroot, "layout": layout}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, metavar="FILE.safetensors")
    parser.add_argument("--dataroot", required=True, metavar="DIR", help="the test set")
    parser.add_argument("--dataset", metavar="NAME", help="which score, where there are several")
    parser.add_argument(
        "--layout", choices=LAYOUTS, metavar="NAME",
        help="the test set's layout; by default that of the score's data set",
    )  # fmt: skip
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser


if __name__ == "__main__":
    main()
