"""Write a data set of synthetic rain: a rain preset applied to a folder of clean photographs.

The images are the same as those of SyntheticRainDataset with the same seed in a test. With one copy
the folders are input/ and target/ (layout Rain13K); with several they are rainy_image/ and
ground_truth/, with several rainy images for each clean one (layout Rain1400).

    python scripts/synthesize_rain.py --clean photographs --output datasets/my_rain --rain light
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from basicsr.data import SyntheticRainDataset
from basicsr.data.degradations.rain import PRESETS
from basicsr.io.images import write_png
from basicsr.metrics import measure
from basicsr.utils.cli import add_workers, command, positive, script_parser
from basicsr.utils.errors import DataError


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.output.exists() and any(options.output.iterdir()):
        raise DataError(f"{options.output}: is not empty; choose another folder or empty it")
    rainy, clean, layout = ("input", "target", "Rain13K")
    if options.copies > 1:
        rainy, clean, layout = ("rainy_image", "ground_truth", "Rain1400")

    sources = [
        SyntheticRainDataset(options.clean, rain=options.rain, seed=options.seed + copy)
        for copy in range(options.copies)
    ]
    count = len(sources[0])
    with ProcessPoolExecutor(options.workers) as pool:
        work = partial(_write, sources, options.output / rainy, options.output / clean)
        scores = list(tqdm(pool.map(work, range(count)), total=count, disable=None))
    print(f"{count * options.copies} pairs in {options.output} (layout {layout})")
    print(f"PSNR of the rainy images: {np.mean(scores):.2f} dB (matlab_y)")


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    parser.add_argument("--clean", required=True, help="folder of clean photographs")
    parser.add_argument("--output", required=True, type=Path, help="a new or empty folder")
    parser.add_argument("--rain", choices=PRESETS, default="light")
    parser.add_argument("--copies", type=positive, default=1, help="rainy images per clean one")
    parser.add_argument("--seed", type=int, default=0, help="copy k uses seed + k (default: 0)")
    add_workers(parser)
    return parser


def _write(sources: list[SyntheticRainDataset], rainy: Path, clean: Path, index: int) -> float:
    """Write one clean image and its rainy copies; return their mean PSNR in dB."""
    name = sources[0].names[index]
    write_png(clean / f"{name}.png", sources[0].read(index).lq)
    scores = []
    for copy, source in enumerate(sources, 1):
        lq, gt = source.sample(index)
        write_png(rainy / (f"{name}_{copy}.png" if len(sources) > 1 else f"{name}.png"), lq)
        scores.append(measure(lq, gt, "matlab_y")["psnr"])
    return float(np.mean(scores))


if __name__ == "__main__":
    main()
