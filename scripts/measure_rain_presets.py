"""Measure how strong the rain presets are on a folder of clean photographs.

python scripts/measure_rain_presets.py --clean photographs
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from tqdm import tqdm

from basicsr.data import SyntheticRainDataset
from basicsr.data.degradations.rain import PRESETS
from basicsr.metrics import Scores, measure
from basicsr.utils.cli import add_workers, command, script_parser


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    with ProcessPoolExecutor(options.workers) as pool:
        print(f"matlab_y of the rainy images, {options.clean}, seed {options.seed}\n")
        print("| preset | PSNR (dB) | 5 % to 95 % of images | SSIM |\n|---|---|---|---|")
        for preset in (name for name in PRESETS if name != "none"):
            source = SyntheticRainDataset(options.clean, rain=preset, seed=options.seed)
            results = pool.map(partial(_scores, source), range(len(source)))
            scores = list(tqdm(results, total=len(source), desc=preset, disable=None, leave=False))
            psnr, ssim = np.transpose([list(each.values()) for each in scores])
            low, high = np.percentile(psnr, [5, 95])
            print(f"| {preset} | {psnr.mean():.2f} | {low:.1f} to {high:.1f} | {ssim.mean():.3f} |")


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    parser.add_argument("--clean", required=True, help="folder of clean photographs")
    parser.add_argument("--seed", type=int, default=0, help="seed of the streaks (default: 0)")
    add_workers(parser)
    return parser


def _scores(source: SyntheticRainDataset, index: int) -> Scores:
    lq, gt = source.sample(index)
    return measure(lq, gt, "matlab_y")


if __name__ == "__main__":
    main()
