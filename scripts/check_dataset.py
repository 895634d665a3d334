"""Check a folder of image pairs before training on it or measuring with it, in one report.

Reports files without a partner, files that cannot be decoded, pairs of different sizes, images that
are there twice and, with --against, scenes that another data set shows too. Exit code 1 where
there are faults.

    python scripts/check_dataset.py --dataroot datasets/RainTrainL --layout RainTrainL \
        --against datasets/Rain100L --against-layout Rain100L
    python scripts/check_dataset.py --lq my/rainy --gt my/clean
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.fft import dctn
from tqdm import tqdm

from basicsr.data import LAYOUTS
from basicsr.data.layouts import PairFiles, Pairing, match, match_folders
from basicsr.data.paired_dataset import read_pair
from basicsr.io.images import list_images, read_image
from basicsr.utils.cli import command
from basicsr.utils.errors import DataError, OptionsError

# of 255 bits: different photographs of BSDS500 differ in 90 and more; an image and its rainy,
# cropped, halved or recompressed version in 62 at most
SAME_SCENE = 75


class Checked(NamedTuple):
    """A pair after decoding: its faults, or else what the report compares."""

    files: PairFiles
    faults: list[str]
    size: tuple[int, int] = (0, 0)
    rainy_pixels: str = ""
    scene: np.ndarray | None = None


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    pairing = _pairing(options)
    with ProcessPoolExecutor(options.workers) as pool:
        checked = _all(pool, check_pair, pairing.pairs, "pairs")
        faults = [
            *(f"{path}: no clean image for it" for path in pairing.lq_alone),
            *(f"{path}: no rainy image for it" for path in pairing.gt_alone),
            *(fault for each in checked for fault in each.faults),
            *_duplicates(checked),
        ]
        scenes = {e.files.gt: e.scene for e in checked if e.scene is not None}
        _describe(checked, scenes)
        if options.against:
            others = _scenes_of(pool, options.against, options.against_layout)
            print(f"compared with   {len(others)} images of {options.against}")
            faults += [
                f"{path}: shows the scene of {other}" for path, other in _shared(scenes, others)
            ]
    print(f"faults          {len(faults) or 'none'}")
    for fault in faults:
        print(f"  {fault}")
    if faults:
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataroot", help="folder of a public data set")
    parser.add_argument("--layout", choices=LAYOUTS, metavar="NAME", help=", ".join(LAYOUTS))
    parser.add_argument("--lq", help="folder of rainy images")
    parser.add_argument("--gt", help="folder of clean images with the same names")
    parser.add_argument("--against", help="another data set, which should show other scenes")
    parser.add_argument(
        "--against-layout",
        choices=LAYOUTS,
        metavar="NAME",
        help="its layout; without it, --against is a folder of clean images",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    return parser


def _pairing(options: argparse.Namespace) -> Pairing:
    if options.dataroot and options.layout and not (options.lq or options.gt):
        return match(options.dataroot, options.layout)
    if options.lq and options.gt and not (options.dataroot or options.layout):
        return match_folders(options.lq, options.gt)
    raise OptionsError("give --dataroot and --layout, or --lq and --gt")


def _all(pool: ProcessPoolExecutor, work, items: list, what: str) -> list:
    done = pool.map(work, items, chunksize=8)
    return list(tqdm(done, total=len(items), desc=what, disable=None, leave=False))


def check_pair(files: PairFiles) -> Checked:
    """Decode a pair and say what is wrong with it."""
    images: dict[Path, np.ndarray] = {}
    faults = []
    for path in dict.fromkeys((files.lq, files.gt)):
        try:
            images[path] = read_image(path)
        except DataError as error:
            faults.append(str(error))
    if faults:
        return Checked(files, faults)
    try:
        rainy, clean = read_pair(files, images.__getitem__)
    except DataError as error:
        return Checked(files, [str(error)])
    assert clean is not None
    if np.array_equal(rainy, clean):
        faults.append(f"{files.lq}: has no rain, it equals its clean image")
    pixels = hashlib.sha256(np.ascontiguousarray(rainy)).hexdigest()
    height, width = rainy.shape[:2]
    return Checked(files, faults, (width, height), pixels, scene_of(clean))


def scene_of(image: np.ndarray) -> np.ndarray:
    """A perceptual hash of a picture's coarse shapes: 255 values of -1 or 1.

    The signs of the lowest 16 x 16 cosine coefficients about their median, the mean left out.
    """
    thumbnail = Image.fromarray(image).convert("L").resize((64, 64), Image.Resampling.BOX)
    coarse = dctn(np.asarray(thumbnail, np.float32))[:16, :16].ravel()[1:]
    return np.where(coarse > np.median(coarse), 1, -1).astype(np.float32)


def _scene_of_file(path: Path) -> np.ndarray | None:
    try:
        return scene_of(read_image(path))
    except DataError as error:
        print(f"left out of the comparison: {error}", file=sys.stderr)
        return None


def _scenes_of(pool: ProcessPoolExecutor, root: str, layout: str | None) -> dict[Path, np.ndarray]:
    if layout:
        checked = _all(pool, check_pair, match(root, layout).pairs, "others")
        return {each.files.gt: each.scene for each in checked if each.scene is not None}
    paths = list_images(root)
    scenes = zip(paths, _all(pool, _scene_of_file, paths, "others"), strict=True)
    return {path: scene for path, scene in scenes if scene is not None}


def _shared(
    scenes: dict[Path, np.ndarray], others: dict[Path, np.ndarray]
) -> list[tuple[Path, Path]]:
    """For each image whose scene is among the others, the nearest of them."""
    if not scenes or not others:
        return []
    columns, matrix = list(others), np.stack(list(others.values())).T
    found = []
    for path, scene in scenes.items():
        distance = (len(scene) - scene @ matrix) / 2
        if distance.min() <= SAME_SCENE:
            found.append((path, columns[int(distance.argmin())]))
    return found


def _repeated_scenes(scenes: dict[Path, np.ndarray]) -> int:
    """How many images show a scene that an image before them shows already."""
    matrix = np.stack(list(scenes.values()))
    return sum(
        (len(scene) - matrix[:row] @ scene).min() / 2 <= SAME_SCENE
        for row, scene in enumerate(matrix)
        if row
    )


def _duplicates(checked: list[Checked]) -> list[str]:
    known: dict[str, Path] = {}
    faults = []
    for each in checked:
        if each.rainy_pixels and each.rainy_pixels in known:
            faults.append(f"{each.files.lq}: same pixels as {known[each.rainy_pixels]}")
        known.setdefault(each.rainy_pixels, each.files.lq)
    return faults


def _describe(checked: list[Checked], scenes: dict[Path, np.ndarray]) -> None:
    sizes = Counter(each.size for each in checked if each.scene is not None)
    print(f"pairs           {len(checked)}, {sizes.total()} of them readable")
    if not sizes:
        return
    common = ", ".join(f"{w}x{h}: {count}" for (w, h), count in sizes.most_common(5))
    print(f"sizes           {common}{f', and {len(sizes) - 5} more' if len(sizes) > 5 else ''}")
    print(f"shortest side   {min(min(size) for size in sizes)}")
    print(f"clean images    {len(scenes)}, {_repeated_scenes(scenes)} show a scene seen before")


if __name__ == "__main__":
    main()
