r"""Measure a folder of restored images against the clean ones.

    python scripts/measure.py --restored results/NAME/Rain100L/restored \
        --clean datasets/Rain100L/norain --layout Rain100L --protocol matlab_y dtpnet

Files belong together by name: equal names, or as the data set of --layout names them. The numbers
are those of basicsr/test.py, except under `dtpnet`: that protocol measures a network's output
before it is rounded to 8 bits, which files no longer hold.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from basicsr.data import LAYOUTS
from basicsr.evaluation.evaluate import mean_scores
from basicsr.evaluation.restored_images import RestoredPair, match_restored
from basicsr.metrics import PROTOCOLS, Scores, measure
from basicsr.utils.cli import command
from basicsr.utils.errors import DataError
from basicsr.utils.files import atomic_write
from basicsr.utils.provenance import provenance

ByProtocol = dict[str, Scores]


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    pairs = match_restored(options.restored, options.clean, options.layout)
    each = measure_pairs(pairs, options.protocol, options.workers)
    means = {name: mean_scores([scores[name] for scores in each]) for name in options.protocol}
    print(table(means, len(pairs)))
    if "dtpnet" in options.protocol:
        print("dtpnet: of 8-bit files; test.py measures the unrounded output, a little differently")
    if options.json:
        with atomic_write(options.json) as file:
            file.write(json.dumps(document(options, pairs, each, means), indent=2).encode())


def measure_pairs(
    pairs: list[RestoredPair], protocols: list[str], workers: int
) -> list[ByProtocol]:
    """The scores of every pair, in its order. Decoding and filtering leave Python's lock, so that
    threads suffice."""
    with ThreadPoolExecutor(workers) as pool:
        scores = pool.map(partial(measure_pair, protocols=protocols), pairs)
        return list(tqdm(scores, "measuring", len(pairs), leave=False, disable=None))


def measure_pair(pair: RestoredPair, protocols: list[str]) -> ByProtocol:
    """One pair's scores. Raises DataError, which names the file, where it cannot be measured."""
    restored, clean = pair.read()
    try:
        return {protocol: measure(restored, clean, protocol) for protocol in protocols}
    except DataError as error:
        raise DataError(f"{pair.restored} against {pair.clean}: {error}") from None


def table(means: ByProtocol, images: int) -> str:
    """The means as a Markdown table."""
    rows = [("images", "protocol", "PSNR", "SSIM"), ("---",) * 4]
    rows += [(str(images), name, f"{s.psnr:.4f}", f"{s.ssim:.6f}") for name, s in means.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def document(
    options: argparse.Namespace,
    pairs: list[RestoredPair],
    each: list[ByProtocol],
    means: ByProtocol,
) -> dict[str, Any]:
    """What --json writes: the means, every image's scores, and where they come from."""
    return {
        "results": [
            {"protocol": name, "images": len(pairs), **_numbers(scores)}
            for name, scores in means.items()
        ],
        "images": [
            {"image": pair.name, **{name: _numbers(s) for name, s in scores.items()}}
            for pair, scores in zip(pairs, each, strict=True)
        ],
        "provenance": {
            "restored": str(options.restored),
            "clean": str(options.clean),
            "layout": options.layout,
            **provenance(torch.device("cpu")),
        },
    }


def _numbers(scores: Scores) -> dict[str, float | str]:
    """JSON knows no infinity (two identical images)."""
    return {"psnr": scores.psnr if math.isfinite(scores.psnr) else "inf", "ssim": scores.ssim}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--restored", required=True, type=Path, metavar="DIR")
    parser.add_argument("--clean", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--protocol",
        nargs="+",
        choices=PROTOCOLS,
        default=["matlab_y"],
        help="; ".join(f"{name}: {each.description}" for name, each in PROTOCOLS.items()),
    )
    parser.add_argument("--layout", choices=LAYOUTS, metavar="NAME", help=", ".join(LAYOUTS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the scores here too")
    parser.add_argument("--workers", type=_positive, default=os.cpu_count(), help="threads")
    return parser


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


if __name__ == "__main__":
    main()
