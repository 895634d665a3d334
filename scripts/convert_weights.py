"""Convert a published checkpoint to a .safetensors file that describes itself, or back.

    python scripts/convert_weights.py logs/Rain100L/PReNet6/net_latest.pth --type PReNet \
        --train-set RainTrainL --source https://github.com/csdwren/PReNet \
        --score Rain100L:37.48:0.979:matlab_y_double:truncate \
        -o pretrained_models/PReNet_Rain100L.safetensors

The metadata of the file holds the network's options, the training set, the source, the SHA-256 of
the original and the published scores, which scripts/verify_weights.py compares with measured ones.
Options that cannot be inferred from the weights are given by --hint. DIDMDN was published as three
files: ORIGINAL is the de-rainer, --residual and --classifier are the others.

    python scripts/convert_weights.py Restormer_Rain13K --to published -o restormer.pth

writes weights of this project in the layout that the authors of the network published, for their
code and for other programs that read it. For DIDMDN, --residual and --classifier name the files to
write the other two parts to.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from basicsr.archs import RestorationNetwork, from_released, released_hints
from basicsr.evaluation.published import PublishedScore, convert
from basicsr.models.pretrained import saved_network, weights_file
from basicsr.options import Network
from basicsr.utils.cli import command, script_parser
from basicsr.utils.errors import CheckpointError, OptionsError
from basicsr.utils.files import atomic_write
from basicsr.utils.registry import ARCH_REGISTRY, options_of

PARTS = ("residual", "classifier")


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.to == "published":
        write_published(options)
        return
    for name in ("type", "train_set", "source"):
        if getattr(options, name) is None:
            raise OptionsError(
                f"--{name.replace('_', '-')}: needed to describe a .safetensors file"
            )
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


def write_published(options: argparse.Namespace) -> None:
    """Write weights of this project as their authors do, once they have been read back equal."""
    targets = {"": options.out, **{name: getattr(options, name) for name in PARTS}}
    targets = {part: file for part, file in targets.items() if file is not None}
    for file in targets.values():
        if file.suffix != ".pth":
            raise OptionsError(f"{file}: the name of a published file must end in .pth")
    network, weights = saved_network(weights_file(options.original), options.type)
    name = options_of(network)["type"]
    parts = {part for part in PARTS if part in released_hints(name)}
    if parts != targets.keys() - {""}:
        files = "".join(f" --{part} FILE" for part in sorted(parts))
        raise OptionsError(f"{name} is published as -o FILE{files}")
    layouts = published_parts(network, sorted(parts))
    require_equal(network, name, layouts)
    for part, file in targets.items():
        content = io.BytesIO()
        wrapper = network.published_wrapper
        torch.save({wrapper: layouts[part]} if wrapper else layouts[part], content)
        with atomic_write(file) as stream:
            stream.write(content.getbuffer())
    variant = (weights.network or {"type": options.type})["type"]  # PRN_r, not its class PReNet
    print(f"{' '.join(map(str, targets.values()))}: {variant} in its authors' layout")


def published_parts(
    network: RestorationNetwork, parts: list[str]
) -> dict[str, dict[str, torch.Tensor]]:
    """Return the published state dict of a network, "", and those of its other `parts`."""
    if not parts:
        return {"": network.published_state_dict()}
    modules: Any = network
    return {
        "": modules.derainer.published_state_dict(),
        "residual": modules.residual_net.published_state_dict(),
        "classifier": dict(modules.classifier.state_dict()),
    }


@torch.no_grad()
def require_equal(
    network: RestorationNetwork, name: str, layouts: dict[str, dict[str, torch.Tensor]]
) -> None:
    """Raise CheckpointError unless the published layout gives a network with the same results."""
    options = options_of(network)
    found = {key: options[key] for key in released_hints(name) & options.keys()}
    others = {part: layout for part, layout in layouts.items() if part}
    reread = from_released(name, layouts[""], **found, **others)
    side = network.fitting_side(24)
    image = torch.rand(1, network.in_channels, side, side)
    if not torch.equal(network.eval()(image), reread.eval()(image)):
        raise CheckpointError(
            f"{name}: the published layout cannot hold this variant; options of the network differ "
            "from its authors' in a way that the weights do not show"
        )


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
        "--type", choices=ARCH_REGISTRY.names(), metavar="NAME",
        help=f"the network: {', '.join(ARCH_REGISTRY.names())}",
    )  # fmt: skip
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="FILE")
    parser.add_argument(
        "--to",
        choices=("safetensors", "published"),
        default="safetensors",
        help="layout to write (default: %(default)s)",
    )
    parser.add_argument("--train-set", metavar="NAME", help="training set")
    parser.add_argument("--source", metavar="URL", help="address of ORIGINAL")
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
