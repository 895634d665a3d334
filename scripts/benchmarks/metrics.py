"""Time the measuring of a data set, beside scikit-image.

    PYTHONPATH=scripts python -m benchmarks.metrics --protocol matlab_y --workers 2

Three timings, interleaved: `files` reads and measures every pair, as scripts/measure.py does;
`measure` measures pairs in memory; `skimage` is scikit-image's PSNR and Gaussian SSIM of the same
luma, in memory. All run on --workers threads. Without --restored and --gt, 100 synthetic pairs of
481 x 321 PNG files are used, the size of Rain100L.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from basicsr.data import LAYOUTS
from basicsr.evaluation.restored_images import match_restored
from basicsr.io.images import write_png
from basicsr.metrics import DEFAULT_PROTOCOL, protocol_names
from basicsr.metrics import measure as measure_image
from basicsr.utils.cli import command, script_parser
from benchmarks.timing import interleaved

HEIGHT, WIDTH, PAIRS = 321, 481, 100
LUMA = np.array([65.481, 128.553, 24.966]) / 255


def measure(
    restored: str | None = None,
    gt: str | None = None,
    layout: str | None = None,
    *,
    protocol: str = DEFAULT_PROTOCOL,
    workers: int = 2,
    repeats: int = 5,
) -> dict[str, Any]:
    """Return the seconds for the whole set: `files`, `measure` and `skimage`, with their spread.

    Args:
        restored: folder of restored images; synthetic pairs if None.
        gt: folder of the ground truth.
        layout: data set that names the files.
        protocol: name of the protocol.
        workers: number of threads.
        repeats: number of runs of each.
    """
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
        if restored is None or gt is None:
            restored, gt, layout = f"{folder}/restored", f"{folder}/gt", None
            draw_pairs(Path(folder))
        pairs = match_restored(restored, gt, layout)
        images = [pair.read() for pair in pairs]

        def seconds(work: Callable[[Any], object], items: list[Any]) -> float:
            started = time.perf_counter()
            for _ in pool.map(work, items):
                pass
            return time.perf_counter() - started

        figures = interleaved(
            {
                "files": lambda: seconds(lambda pair: measure_image(*pair.read(), protocol), pairs),
                "measure": lambda: seconds(lambda both: measure_image(*both, protocol), images),
                "skimage": lambda: seconds(by_skimage, images),
            },
            repeats,
        )
    return {
        "subject": "metrics",
        "unit": "seconds",
        "images": f"{len(pairs)} pairs",
        "protocol": protocol,
        "workers": workers,
        "cores": os.cpu_count(),
        "load_before": load,
        **figures,
    }


def by_skimage(images: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    a, b = (np.round(16 + image @ LUMA) for image in images)
    ssim = structural_similarity(
        a, b, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return peak_signal_noise_ratio(a, b, data_range=255), ssim


def draw_pairs(root: Path, pairs: int = PAIRS) -> None:
    """Write noisy gradients, which PNG compresses about as well as photographs."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for number in range(pairs):
        rng = np.random.default_rng(number)
        shapes = 128 + 60 * np.sin(x / 40 + number) + 50 * np.cos(y / 30)
        for side in ("restored", "gt"):
            noisy = shapes[..., None] + rng.normal(0, 3, (HEIGHT, WIDTH, 3))
            write_png(root / side / f"{number}.png", np.clip(noisy, 0, 255).astype(np.uint8))


@command
def main(arguments: list[str] | None = None) -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--restored", metavar="DIR", help="restored images")
    parser.add_argument("--gt", metavar="DIR", help="their ground truth")
    parser.add_argument("--layout", choices=LAYOUTS, metavar="NAME", help="how they are named")
    parser.add_argument("--protocol", choices=protocol_names(), default=DEFAULT_PROTOCOL)
    parser.add_argument("--workers", type=int, default=2, help="threads (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="default: %(default)s")
    print(json.dumps(measure(**vars(parser.parse_args(arguments))), indent=2))


if __name__ == "__main__":
    main()
