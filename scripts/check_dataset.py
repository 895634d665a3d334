"""Check a folder of image pairs before training or measuring with it.

Reports unpaired files, files that cannot be decoded, pairs of different sizes, duplicates and, with
--against, scenes that also appear in another data set. Exits with code 1 if there are faults.

    python scripts/check_dataset.py --dataroot datasets/RainTrainL --layout RainTrainL \
        --against datasets/Rain100L --against-layout Rain100L
    python scripts/check_dataset.py --lq my/lq --gt my/gt
"""

from __future__ import annotations

import argparse
import hashlib
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
from basicsr.io.opening import set_max_megapixels
from basicsr.utils.cli import add_max_megapixels, add_workers, command, script_parser
from basicsr.utils.errors import DataError, OptionsError

# Hashes of different photographs of BSDS500 differ in at least 90 of 255 bits; those of an image
# and its degraded, cropped, halved or recompressed version in at most 62
SAME_SCENE = 75


class Checked(NamedTuple):
    """Result of checking a pair: its faults, or the properties to compare with other pairs."""

    files: PairFiles
    faults: list[str]
    size: tuple[int, int] = (0, 0)
    lq_sha256: str = ""
    scene: np.ndarray | None = None


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    set_max_megapixels(options.max_megapixels)
    pairing = _pairing(options)
    with ProcessPoolExecutor(options.workers) as pool:
        checked = _map(pool, check_pair, pairing.pairs, "pairs")
        faults = [
            *(f"{path}: has no gt image" for path in pairing.lq_alone),
            *(f"{path}: has no lq image" for path in pairing.gt_alone),
            *(fault for each in checked for fault in each.faults),
            *_duplicates(checked),
        ]
        scenes = _scenes(checked)
        _print_summary(checked, scenes)
        if options.against:
            others = _scenes_in(pool, options.against, options.against_layout)
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
    parser = script_parser(__doc__)
    parser.add_argument("--dataroot", help="folder of a public data set")
    parser.add_argument("--layout", choices=LAYOUTS, metavar="NAME", help=", ".join(LAYOUTS))
    parser.add_argument("--lq", help="folder of degraded images")
    parser.add_argument("--gt", help="folder of ground-truth images with the same names")
    parser.add_argument("--against", help="another data set, which must not show the same scenes")
    parser.add_argument(
        "--against-layout",
        choices=LAYOUTS,
        metavar="NAME",
        help="layout of --against; without it, --against is a folder of ground-truth images",
    )
    add_workers(parser)
    add_max_megapixels(parser)
    return parser


def _pairing(options: argparse.Namespace) -> Pairing:
    if options.dataroot and options.layout and not (options.lq or options.gt):
        return match(options.dataroot, options.layout)
    if options.lq and options.gt and not (options.dataroot or options.layout):
        return match_folders(options.lq, options.gt)
    raise OptionsError("arguments: give either --dataroot and --layout, or --lq and --gt")


def _map(pool: ProcessPoolExecutor, function, items: list, title: str) -> list:
    """Apply `function` to all items in parallel, with a progress bar."""
    results = pool.map(function, items, chunksize=8)
    return list(tqdm(results, total=len(items), desc=title, disable=None, leave=False))


def check_pair(files: PairFiles) -> Checked:
    """Decode a pair and return its faults and properties."""
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
        lq, gt = read_pair(files, images.__getitem__)
    except DataError as error:
        return Checked(files, [str(error)])
    assert gt is not None
    if np.array_equal(lq, gt):
        faults.append(f"{files.lq}: is equal to its gt image")
    digest = hashlib.sha256(np.ascontiguousarray(lq)).hexdigest()
    height, width = lq.shape[:2]
    return Checked(files, faults, (width, height), digest, scene_hash(gt))


def scene_hash(image: np.ndarray) -> np.ndarray:
    """Return a perceptual hash of the image's coarse structure: 255 values of -1 or 1.

    The values say which of the lowest 16 x 16 DCT coefficients, without the constant one, are above
    their median.
    """
    thumbnail = Image.fromarray(image).convert("L").resize((64, 64), Image.Resampling.BOX)
    coarse = dctn(np.asarray(thumbnail, np.float32))[:16, :16].ravel()[1:]
    return np.where(coarse > np.median(coarse), 1, -1).astype(np.float32)


def _scene_of_file(path: Path) -> np.ndarray | None:
    try:
        return scene_hash(read_image(path))
    except DataError as error:
        print(f"skipped in the comparison: {error}", file=sys.stderr)
        return None


def _scenes(checked: list[Checked]) -> dict[Path, np.ndarray]:
    """Return the scene hashes of the readable pairs by gt file."""
    return {each.files.gt: each.scene for each in checked if each.scene is not None}


def _scenes_in(pool: ProcessPoolExecutor, root: str, layout: str | None) -> dict[Path, np.ndarray]:
    if layout:
        return _scenes(_map(pool, check_pair, match(root, layout).pairs, "others"))
    paths = list_images(root)
    scenes = zip(paths, _map(pool, _scene_of_file, paths, "others"), strict=True)
    return {path: scene for path, scene in scenes if scene is not None}


def _shared(
    scenes: dict[Path, np.ndarray], others: dict[Path, np.ndarray]
) -> list[tuple[Path, Path]]:
    """Return the images whose scene appears among `others`, each with the closest of these."""
    if not scenes or not others:
        return []
    other_paths, matrix = list(others), np.stack(list(others.values())).T
    matches = []
    for path, scene in scenes.items():
        distance = (len(scene) - scene @ matrix) / 2  # Hamming distance of values of -1 and 1
        if distance.min() <= SAME_SCENE:
            matches.append((path, other_paths[int(distance.argmin())]))
    return matches


def _repeated_scenes(scenes: dict[Path, np.ndarray]) -> int:
    """Count the images whose scene appears in an earlier image too."""
    matrix = np.stack(list(scenes.values()))
    return sum(
        (len(scene) - matrix[:row] @ scene).min() / 2 <= SAME_SCENE
        for row, scene in enumerate(matrix)
        if row
    )


def _duplicates(checked: list[Checked]) -> list[str]:
    """Return a fault for each lq image with the pixels of an earlier one."""
    first: dict[str, Path] = {}
    faults = []
    for each in checked:
        if each.lq_sha256 and each.lq_sha256 in first:
            faults.append(f"{each.files.lq}: has the same pixels as {first[each.lq_sha256]}")
        first.setdefault(each.lq_sha256, each.files.lq)
    return faults


def _print_summary(checked: list[Checked], scenes: dict[Path, np.ndarray]) -> None:
    sizes = Counter(each.size for each in checked if each.scene is not None)
    print(f"pairs           {len(checked)}, {sizes.total()} readable")
    if not sizes:
        return
    common = [f"{w}x{h}: {count}" for (w, h), count in sizes.most_common(5)]
    if len(sizes) > 5:
        common.append(f"and {len(sizes) - 5} more")
    print(f"sizes           {', '.join(common)}")
    print(f"shortest side   {min(min(size) for size in sizes)}")
    repeated = _repeated_scenes(scenes)
    print(f"gt images       {len(scenes)}, {repeated} show the scene of an earlier one")


if __name__ == "__main__":
    main()
