"""Measure the pairs of training patches per second, against plain decode-and-crop.

    PYTHONPATH=scripts python -m benchmarks.loader --workers 8 --size 128

The loader reads from its decode cache, which is filled before. The plain one is a DataLoader with
as many workers, which opens both images of a pair with Pillow and crops them; more workers than
cores are not started. Runs are interleaved, and timed after every worker has delivered a batch. A
pair is two crops. Without --dataroot, the images are synthetic: 100 pairs of 481 x 321, stored as
PNG, as in Rain100L.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler

from basicsr.data import LoaderSettings, PairedImageDataset, SampleStage, training_batches
from basicsr.data.workers import usable_workers
from basicsr.io.images import write_png
from basicsr.utils.cli import add_workers, command, positive, script_parser
from benchmarks.timing import interleaved

HEIGHT, WIDTH, PAIRS = 321, 481, 100
PLAIN_SHARE = 10  # plain decoding is timed on a tenth of the batches


def measure(
    dataroot: str | None = None,
    layout: str = "RainTrainL",
    *,
    workers: int = 8,
    size: int = 128,
    batch_size: int = 16,
    batches: int = 600,
    repeats: int = 5,
) -> dict[str, Any]:
    """Return pairs per second as `loader` and `plain`, each with median, low, high and runs.

    The other entries describe the measurement. The arguments are those of the command.
    """
    load = os.getloadavg()[0]
    workers = usable_workers(workers)
    with tempfile.TemporaryDirectory() as folder:
        if dataroot is None:
            draw_pairs(Path(folder))
            folders = {"dataroot_lq": f"{folder}/lq", "dataroot_gt": f"{folder}/gt"}
        else:
            folders = {"dataroot": dataroot, "layout": layout}
        dataset = PairedImageDataset(**folders, cache="memory")
        for index in range(len(dataset)):
            dataset.read(index)
        warm_up = 2 * workers + 1

        def loader() -> float:
            stages = [SampleStage(size, batch_size, warm_up + batches)]
            stream = training_batches(dataset, LoaderSettings(stages, num_workers=workers))
            return pairs_per_second(stream, batch_size, warm_up)

        def plain() -> float:
            pairs = PlainPairs(dataset, size)
            samples = (warm_up + max(batches // PLAIN_SHARE, 1)) * batch_size
            sampler = RandomSampler(pairs, replacement=True, num_samples=samples)
            stream = DataLoader(pairs, batch_size, sampler=sampler, num_workers=workers)
            return pairs_per_second(stream, batch_size, warm_up)

        figures = interleaved({"loader": loader, "plain": plain}, repeats)
    return {
        "subject": "loader",
        "unit": "pairs of patches in a second",
        "images": f"{len(dataset)} pairs",
        "workers": workers,
        "size": size,
        "batch_size": batch_size,
        "cores": os.cpu_count(),
        "load_before": load,
        **figures,
    }


class PlainPairs(Dataset):
    """Data set that decodes, crops and converts, without any tuning."""

    def __init__(self, dataset: PairedImageDataset, size: int) -> None:
        self.pairs, self.size = dataset.pairs, size

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        pair = self.pairs[index]
        with Image.open(pair.lq) as lq_file, Image.open(pair.gt) as gt_file:
            left = int(torch.randint(lq_file.width - self.size + 1, ()))
            top = int(torch.randint(lq_file.height - self.size + 1, ()))
            box = (left, top, left + self.size, top + self.size)
            lq, gt = (np.array(image.convert("RGB").crop(box)) for image in (lq_file, gt_file))
        return torch.from_numpy(lq).permute(2, 0, 1), torch.from_numpy(gt).permute(2, 0, 1)


def pairs_per_second(stream: Iterable[Any], batch_size: int, warm_up: int) -> float:
    """Return the speed of the batches after the first `warm_up` ones."""
    started, timed = 0.0, 0
    for number, _ in enumerate(stream, start=1):
        if number == warm_up:
            started = time.perf_counter()
        timed = number - warm_up
    return timed * batch_size / (time.perf_counter() - started)


def draw_pairs(root: Path, pairs: int = PAIRS) -> None:
    """Write smooth shapes with a little noise, which PNG compresses like photographs."""
    for number in range(pairs):
        rng = np.random.default_rng(number)
        shapes = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(shapes.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
        for side in ("lq", "gt"):
            noisy = smooth + rng.normal(0, 3, smooth.shape)
            write_png(root / side / f"{number}.png", np.clip(noisy, 0, 255).astype(np.uint8))


@command
def main(arguments: list[str] | None = None) -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--dataroot", help="public data set, instead of synthetic pairs")
    parser.add_argument("--layout", default="RainTrainL", help="of --dataroot (%(default)s)")
    add_workers(parser, "loader processes", default=8)
    for name, default, text in (
        ("--size", 128, "side of the patches"),
        ("--batch-size", 16, "pairs of a batch"),
        ("--batches", 600, "timed batches"),
        ("--repeats", 5, "runs of each loader"),
    ):
        parser.add_argument(
            name, type=positive, default=default, help=f"{text} (default: %(default)s)"
        )
    print(json.dumps(measure(**vars(parser.parse_args(arguments))), indent=2))


if __name__ == "__main__":
    main()
