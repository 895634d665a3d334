r"""Measure a folder of restored images.

    python scripts/measure.py --restored results/NAME/Rain100L/restored \
        --gt datasets/Rain100L/norain --layout Rain100L --protocol matlab_y dtpnet
    python scripts/measure.py --restored results/NAME/real_rain/restored --protocol niqe
    python scripts/measure.py --restored Idenoised.mat --gt ValidationGtBlocksSrgb.mat \
        --protocol sidd

Restored images and ground truth are paired by name: equal names, or the rules of the data set given
by --layout. Without --gt, protocols that need no ground truth work. Blocks of SIDD are read from
MATLAB files. The numbers are those of basicsr/test.py, except under protocols that measure the
network's unrounded output, which image files no longer hold.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import the library that the file belongs to
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from basicsr.data.layouts import LAYOUTS
from basicsr.evaluation.restored_images import (
    RestoredImage,
    list_restored,
    match_blocks,
    match_restored,
)
from basicsr.io.images import BitDepth
from basicsr.io.opening import set_max_megapixels
from basicsr.metrics import (
    DEFAULT_PROTOCOL,
    Protocol,
    Scores,
    flag_remarks,
    get_protocol,
    protocol_names,
)
from basicsr.utils.cli import add_max_megapixels, add_workers, command, script_parser
from basicsr.utils.errors import DataError, OptionsError
from basicsr.utils.files import atomic_write
from basicsr.utils.provenance import provenance

ScoresByProtocol = dict[str, Scores]


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    set_max_megapixels(options.max_megapixels)
    protocols = [get_protocol(name) for name in options.protocol]
    images = images_to_measure(options, protocols)
    bit_depth: BitDepth = 8 if options.bit_depth == "8" else "as_stored"
    each = measure_images(images, protocols, options.workers, bit_depth)
    means = {p.name: p.summarize([scores[p.name] for scores in each]) for p in protocols}
    print(table(means, len(images)))
    for protocol in protocols:
        for remark in flag_remarks(protocol.flags, means[protocol.name], len(images)):
            print(f"{protocol.name}: {remark}")
        if protocol.reads == "float" and any(image.block is None for image in images):
            print(
                f"{protocol.name}: of image files; test.py measures the unrounded output, whose "
                "scores differ a little"
            )
    if options.json:
        with atomic_write(options.json) as file:
            file.write(json.dumps(document(options, images, each, means), indent=2).encode())


def images_to_measure(
    options: argparse.Namespace, protocols: Sequence[Protocol]
) -> list[RestoredImage]:
    """Return the images; raise OptionsError if a protocol needs a ground truth without --gt."""
    if options.restored.suffix == ".mat" and options.gt is not None:
        return match_blocks(options.restored, options.gt)
    if options.gt is not None:
        return match_restored(options.restored, options.gt, options.layout, options.allow_missing)
    for protocol in protocols:
        if protocol.needs_reference:
            raise OptionsError(f"--protocol {protocol.name}: needs the ground truth; give --gt DIR")
    return list_restored(options.restored)


def measure_images(
    images: Sequence[RestoredImage],
    protocols: Sequence[Protocol],
    workers: int,
    bit_depth: BitDepth,
) -> list[ScoresByProtocol]:
    """Return the scores of every image.

    Threads suffice: decoding and filtering release Python's global lock.
    """
    from tqdm import tqdm

    with ThreadPoolExecutor(workers) as pool:
        measure = partial(measure_image, protocols=protocols, bit_depth=bit_depth)
        scores = pool.map(measure, images)
        return list(tqdm(scores, "measuring", len(images), leave=False, disable=None))


def measure_image(
    image: RestoredImage, protocols: Sequence[Protocol], bit_depth: BitDepth
) -> ScoresByProtocol:
    """Return the scores of one image; raise DataError, which names the files, if it has none."""
    restored, gt = image.read(bit_depth=bit_depth)
    try:
        return {protocol.name: protocol(restored, gt) for protocol in protocols}
    except DataError as error:
        against = "" if image.gt is None else f" against {image.gt}"
        raise DataError(f"{image.restored}{against}: {error}") from None


def table(means: ScoresByProtocol, images: int) -> str:
    """Return the means as a Markdown table, with two digits more than result tables show."""
    metrics = {
        metric.name: metric
        for protocol in means
        for metric in get_protocol(protocol).available_metrics
    }
    headings = ["images", "protocol", *(metric.label for metric in metrics.values())]
    rows = [headings, ["---"] * len(headings)]
    for protocol, scores in means.items():
        cells = [
            f"{scores[name]:.{metric.decimals + 2}f}" if name in scores else ""
            for name, metric in metrics.items()
        ]
        rows.append([str(images), protocol, *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def document(
    options: argparse.Namespace,
    images: Sequence[RestoredImage],
    each: Sequence[ScoresByProtocol],
    means: ScoresByProtocol,
) -> dict[str, Any]:
    """Return the content of the --json file: means, per-image scores and provenance."""
    import torch

    from basicsr.evaluation.score_files import json_scores

    return {
        "results": [
            {"protocol": protocol, "images": len(images), **json_scores(scores)}
            for protocol, scores in means.items()
        ],
        "images": [
            {"image": image.name, **{p: json_scores(scores) for p, scores in by_protocol.items()}}
            for image, by_protocol in zip(images, each, strict=True)
        ],
        "provenance": {
            "restored": str(options.restored),
            "gt": None if options.gt is None else str(options.gt),
            "layout": options.layout,
            "bit_depth": options.bit_depth,
            **provenance(torch.device("cpu")),
        },
    }


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    parser.add_argument("--restored", required=True, type=Path, metavar="DIR|FILE.mat")
    parser.add_argument("--gt", type=Path, metavar="DIR|FILE.mat", help="ground truth")
    parser.add_argument(
        "--protocol",
        nargs="+",
        default=[DEFAULT_PROTOCOL],
        metavar="NAME",
        help="; ".join(f"{name}: {get_protocol(name).description}" for name in protocol_names())
        + f"; iqa:METRIC: a metric of the package pyiqa (default: {DEFAULT_PROTOCOL})",
    )
    parser.add_argument("--layout", choices=LAYOUTS, metavar="NAME", help=", ".join(LAYOUTS))
    parser.add_argument(
        "--bit-depth",
        choices=("8", "as_stored"),
        default="as_stored",
        help="8: read 16-bit files as 8-bit ones, as tests of single-image defocus deblurring do",
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="measure a subset: leave out unpaired files"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the scores to this file")
    add_workers(parser, "threads")
    add_max_megapixels(parser)
    return parser


if __name__ == "__main__":
    main()
