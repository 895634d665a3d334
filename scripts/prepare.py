"""Check a public data set and cut it into the crops that networks are trained and validated on.

GoPro: crops of 512 pixels every 256; val: central crops of 256 of the test images.
DPDD:  crops of 512 every 204, without the 30 % blurriest; val: central crops of 256; 16 bits stay.
SIDD:  crops of 512 every 384.
DFWB:  DIV2K/, Flickr2K/, WaterlooED/ and BSD400/: crops of 512 every 416 of images with both sides
       above 800, other images whole.
HIDE and the test sets are checked only: networks restore their whole images.

A crop that is already there is kept: after an interruption, start the same command again.

    python scripts/prepare.py GoPro train --source GOPRO_Large/train --output datasets/train/GoPro
    python scripts/prepare.py DPDD val --source dd_dp_dataset_canon/val_c --output datasets/val/DPDD
    python scripts/prepare.py HIDE test --source datasets/test/HIDE
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
from preparation.cutting import Cut, Item, cut_item
from preparation.sets import PREPARATIONS
from tqdm import tqdm

from basicsr.io.images import list_images
from basicsr.utils.cli import add_workers, command, script_parser
from basicsr.utils.errors import DataError, OptionsError
from basicsr.utils.files import expanded


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if (options.set, options.part) not in PREPARATIONS:
        parts = ", ".join(part for name, part in PREPARATIONS if name == options.set)
        raise OptionsError(f"{options.set} has no part '{options.part}'; known: {parts}")
    preparation = PREPARATIONS[options.set, options.part]
    items = preparation.find(options.source)
    if not options.partial:
        preparation.require_complete(options.source, items)
    print(f"{options.set} {options.part}: {len(items)} images, published: {preparation.total}")
    if preparation.cut is None:
        return
    if options.output is None:
        raise OptionsError("--output is missing")
    crops = _cut_all(items, preparation.cut, options.output, options.workers)
    folders = ", ".join(str(options.output / view) for view in items[0].views)
    print(f"{crops} crops in {folders}")


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    parser.add_argument("set", choices=sorted({name for name, _ in PREPARATIONS}))
    parser.add_argument("part", choices=("train", "val", "test"))
    parser.add_argument("--source", required=True, type=expanded, help="folder of the part")
    parser.add_argument("--output", type=expanded, help="folder of the crops")
    parser.add_argument("--partial", action="store_true", help="accept an incomplete data set")
    add_workers(parser)
    return parser


def _cut_all(items: list[Item], cut: Cut, output: Path, workers: int) -> int:
    """Cut all items and return the number of crops per view.

    Raises DataError if there are other images in the output folders.
    """
    views = items[0].views
    for view in views:
        for half_written in (output / view).glob(".*.png.*"):  # by a run that was killed
            half_written.unlink()
    cv2.setNumThreads(1)  # every core has its worker; forked from threads, they would deadlock
    work = partial(cut_item, cut, output)
    written: set[Path] = set()
    with ProcessPoolExecutor(workers, initializer=_ignore_interrupts) as pool:
        for files in tqdm(pool.map(work, items), total=len(items), unit="image", disable=None):
            written.update(files)
    _require_nothing_else(written, (output / view for view in views))
    return len(written) // len(views)


def _ignore_interrupts() -> None:
    """Leave Ctrl-C to the main process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _require_nothing_else(written: set[Path], folders: Iterable[Path]) -> None:
    for folder in folders:
        others = [path for path in list_images(folder) if path not in written]
        if others:
            raise DataError(
                f"{folder}: {len(others)} images are not from this data set, the first is "
                f"{others[0].name}; remove them"
            )


if __name__ == "__main__":
    main()
