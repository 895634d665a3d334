"""Publish the weights of a finished run with its options and test results.

    python scripts/publish_weights.py experiments/NAME --weights latest \
        --scores results/NAME/scores.json -o pretrained_models/NAME.safetensors

The metadata of the file holds the run's options, iterations and machine, and the scores of these
weights, which scripts/verify_weights.py compares with measured ones.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from basicsr.evaluation.published import PublishedScore
from basicsr.io.checkpoints import load_weights, save_weights
from basicsr.metrics import get_protocol
from basicsr.options.yaml_files import read_yaml
from basicsr.utils.cli import command, script_parser
from basicsr.utils.errors import CheckpointError, DataError, OptionsError
from basicsr.utils.files import sha256


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.out.suffix != ".safetensors":
        raise OptionsError(f"-o {options.out}: the file's name must end in .safetensors")
    file = options.run / "models" / f"net_g_{options.weights}.safetensors"
    weights = load_weights(file)
    if weights.network is None:
        raise CheckpointError(f"{file}: its metadata does not name the network")
    save_weights(
        options.out,
        weights.state_dict,
        weights.network,
        iteration=weights.facts.get("iteration"),
        **recipe(options.run),
        scores=scores(options.scores, sha256(file)),
    )
    print(f"{options.out}: SHA-256 {sha256(options.out)}")


def recipe(run: Path) -> dict[str, Any]:
    """Return the facts about the training that a run's folder has."""
    options = read_yaml(run / "options.yml")
    environment = (run / "environment.jsonl").read_text().splitlines()
    last = json.loads(environment[-1])
    return {
        "train_set": options["datasets"]["train"]["name"],
        "source": f"this project's run {options['name']}",
        "seed": options["manual_seed"],
        "options": options,
        "trained_with": {key: last[key] for key in ("library", "git_revision", "torch", "device")},
    }


def scores(files: Sequence[Path], weights_sha256: str) -> list[dict[str, str]]:
    """Return the scores of each data set under its first protocol, as published scores.

    Raises DataError if they are of other weights.
    """
    found: dict[str, dict[str, str]] = {}
    for file in files:
        try:
            results = json.loads(file.read_text())
            provenance = results["provenance"]
            quantize = provenance["options"]["val"]["quantize"]
            printed = [_printed(each, quantize) for each in results["results"]]
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{file}: no scores.json of test.py ({error!r})") from None
        if provenance["weights_sha256"] != weights_sha256:
            raise DataError(f"{file}: scores of other weights; run test.py with these")
        for score in printed:
            found.setdefault(score["dataset"], score)
    return list(found.values())


def _printed(result: Mapping[str, Any], quantize: str) -> dict[str, str]:
    protocol = get_protocol(result["protocol"])
    measured = [metric for metric in protocol.metrics if metric.name in result]
    printed = {m.name: f"{float(result[m.name]):.{m.decimals}f}" for m in measured}
    return PublishedScore(result["dataset"], printed, protocol.name, quantize).facts()


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="experiments/<name>")
    parser.add_argument(
        "--weights", default="latest", metavar="WHICH", help="latest, best, or an iteration"
    )
    parser.add_argument(
        "--scores", type=Path, nargs="+", required=True, metavar="FILE", help="scores.json"
    )
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="FILE.safetensors")
    return parser


if __name__ == "__main__":
    main()
