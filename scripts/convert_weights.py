"""Convert a published checkpoint to a .safetensors file that describes itself.

    python scripts/convert_weights.py logs/Rain100L/PReNet6/net_latest.pth --type PReNet \
        --train-set RainTrainL --source https://github.com/csdwren/PReNet \
        --score Rain100L:37.48:0.979:matlab_y_double:truncate \
        -o pretrained_models/PReNet_Rain100L.safetensors

The metadata of the file holds the network's options, the training set, the source, the SHA-256 of
the original and the published scores, which scripts/verify_weights.py compares with measured ones.
Options that cannot be inferred from the weights are given by --hint. DIDMDN was published as three
files: ORIGINAL is the de-rainer, --residual and --classifier are the others.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from basicsr.archs import released_hints
from basicsr.evaluation.published import PublishedScore, convert
from basicsr.options import Network
from basicsr.utils.cli import command, script_parser
from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import ARCH_REGISTRY

PARTS = ("residual", "classifier")


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.out.suffix != ".safetensors":
        raise OptionsError(f"-o {options.out}: the file's name must end in .safetensors")
    parts = {name: getattr(options, name) for name in PARTS if getattr(options, name)}
    if parts and not released_hints(options.type).issuperset(parts):
        raise OptionsError(f"{options.type} is one file: leave out --{' and --'.join(parts)}")
    network = convert(
        options.type,
        options.original,
        options.out,
        hints(options.type, options.hint),
        parts,
        train_set=options.train_set,
        source=options.source,
        scores=scores(options.score),
    )
    parameters = sum(parameter.numel() for parameter in network.parameters())
    print(f"{options.out}: {options.type} with {parameters:,} parameters")


def hints(type: str, assignments: list[str]) -> dict[str, Any]:
    """Parse "name=value" texts to constructor arguments, checked like those of an option file."""
    known = sorted(released_hints(type) - set(PARTS))
    found = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or name not in known:
            raise OptionsError(
                f"--hint {assignment}: expected NAME=VALUE; {type} takes "
                f"{', '.join(known) or 'no hints: its weights determine everything'}"
            )
        found[name] = _value(value)
    try:
        TypeAdapter(Network).validate_json(json.dumps({"type": type, **found}))
    except ValidationError as error:
        fault = error.errors()[0]
        raise OptionsError(f"--hint {fault['loc'][-1]}: {fault['msg']}") from None
    return found


def scores(texts: list[str]) -> list[dict[str, str]]:
    """Parse the published scores. Raises OptionsError for two of one data set."""
    found = [PublishedScore.parse(text).facts() for text in texts]
    names = [score["dataset"] for score in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise OptionsError(f"--score: there are two of {min(twice)}; give the one to verify")
    return found


def _value(text: str) -> Any:
    """Parse a number, true or false; other values are text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    parser.add_argument("original", type=Path, metavar="ORIGINAL")
    parser.add_argument(
        "--type", required=True, choices=ARCH_REGISTRY.names(), metavar="NAME",
        help=f"the network: {', '.join(ARCH_REGISTRY.names())}",
    )  # fmt: skip
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="FILE.safetensors")
    parser.add_argument("--train-set", required=True, metavar="NAME", help="training set")
    parser.add_argument("--source", required=True, metavar="URL", help="address of ORIGINAL")
    parser.add_argument(
        "--score",
        action="append",
        default=[],
        metavar="DATASET:PSNR:SSIM:PROTOCOL[:truncate]",
        help="as printed; METRIC=VALUE in place of PSNR:SSIM for other metrics; 'truncate' if "
        "outputs were truncated to 8 bits, not rounded; repeatable",
    )
    parser.add_argument(
        "--hint", action="append", default=[], metavar="NAME=VALUE",
        help="a constructor argument that the weights do not determine; repeatable",
    )  # fmt: skip
    parser.add_argument("--residual", type=Path, metavar="FILE", help="DIDMDN's residual net")
    parser.add_argument("--classifier", type=Path, metavar="FILE", help="DIDMDN's classifier")
    return parser


if __name__ == "__main__":
    main()
