"""Denoise a benchmark whose ground truth only its server has, and write the files to send there.

    python scripts/submit.py DND --dataroot datasets/test/DND --weights NET.safetensors \\
        --output results/DND
    python scripts/submit.py SIDD --dataroot datasets/test/SIDD --output results/SIDD \\
        --weights pretrained_models/Restormer/real_denoising.pth --type Restormer

DND: 0001.mat to 0050.mat (`Idenoised`, 20 regions each); zip the folder. Images that are there are
kept: after an interruption, start the same command again. SIDD: Idenoised.mat of the benchmark's
blocks. Both hold the network's output as float32 in [0, 1], not rounded.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from basicsr.inference.restorer import Restorer, RestorerSettings
from basicsr.io.mat_blocks import (
    DndImages,
    SiddBlocks,
    dnd_submission_file,
    write_dnd_submission,
    write_sidd_result,
)
from basicsr.models.pretrained import saved_network, weights_file
from basicsr.utils.cli import add_device, add_precision, command, script_parser
from basicsr.utils.devices import select_device
from basicsr.utils.errors import OptionsError


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    network, _ = saved_network(weights_file(options.weights), options.type)
    if (network.in_channels, network.out_channels) != (3, 3):
        raise OptionsError(
            f"{options.weights}: restores {network.in_channels} channels to "
            f"{network.out_channels}; the benchmark's images have three"
        )
    settings = RestorerSettings(precision=options.precision)
    restorer = Restorer(network, select_device(options.device), settings)
    if options.benchmark == "DND":
        _denoise_dnd(DndImages(options.dataroot), restorer, options.output)
    else:
        blocks = SiddBlocks(options.dataroot / "BenchmarkNoisyBlocksSrgb.mat")
        _denoise_sidd(blocks, restorer, options.output)


def _denoise_dnd(images: DndImages, restorer: Restorer, output: Path) -> None:
    kept = 0
    for image, boxes in enumerate(tqdm(images.boxes, unit="image", disable=None)):
        if dnd_submission_file(output, image).exists():
            kept += 1
            continue
        crops = [restorer(images.crop(image, box)) for box in range(len(boxes))]
        write_dnd_submission(output, image, crops)
    earlier = f", {kept} of them from an earlier call: of the same weights?" if kept else ""
    print(f"{len(images)} images in {output}{earlier}")


def _denoise_sidd(blocks: SiddBlocks, restorer: Restorer, output: Path) -> None:
    restored = np.empty(blocks.shape, np.float32)
    for position in tqdm(np.ndindex(blocks.shape[:2]), total=len(blocks), disable=None):
        restored[position] = restorer(blocks[position])
    write_sidd_result(output / "Idenoised.mat", restored)
    print(f"{len(blocks)} blocks in {output / 'Idenoised.mat'}")


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    parser.add_argument("benchmark", choices=("DND", "SIDD"))
    parser.add_argument("--dataroot", required=True, type=Path, help="folder of the benchmark")
    parser.add_argument(
        "--weights",
        required=True,
        metavar="NAME|FILE",
        help="shipped weights, a .safetensors file of this project, or a published file",
    )
    parser.add_argument(
        "--type", metavar="NETWORK", help="network of a published file: Restormer, MPRNet, ..."
    )
    parser.add_argument("--output", required=True, type=Path, help="folder of the result")
    add_device(parser)
    add_precision(parser)
    return parser


if __name__ == "__main__":
    main()
