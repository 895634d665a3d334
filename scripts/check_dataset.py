"""Check a folder of image pairs, or of clean images, before training or measuring with it.

Reports unpaired files, files that cannot be decoded, pairs of different sizes, duplicates, images
of the test sets BSD68, Set12 and Rain100 (recognised by their content, whatever they are called),
and with --against, scenes that also appear in another data set. Of public sets, it says which
version this is and what follows. Exits with code 1 if there are faults.

    python scripts/check_dataset.py --dataroot datasets/RainTrainL --layout RainTrainL \
        --against datasets/Rain100L --against-layout Rain100L
    python scripts/check_dataset.py --lq my/lq --gt my/gt
    python scripts/check_dataset.py --gt datasets/BSD400
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
from checking.scenes import (
    SharedScene,
    called_like,
    known_scenes,
    repeated_scenes,
    scene_block,
    scene_hash,
    shared_scenes,
)
from checking.versions import Seen, findings, label_of
from tqdm import tqdm

from basicsr.data import LAYOUTS
from basicsr.data.layouts import PairFiles, Pairing, match, match_folders
from basicsr.data.paired_dataset import read_pair
from basicsr.data.pairing import PairingRule, match_list, match_rule
from basicsr.io.images import image_format, images_by_stem, list_images, read_image
from basicsr.io.opening import set_max_megapixels
from basicsr.io.stored_files import is_lmdb
from basicsr.utils.cli import add_max_megapixels, add_workers, command, script_parser
from basicsr.utils.errors import DataError, OptionsError
from basicsr.utils.files import expanded


class Checked(NamedTuple):
    """Result of checking a pair: its faults, or the properties to compare with other pairs."""

    files: PairFiles
    faults: list[str]
    size: tuple[int, int] = (0, 0)
    lq_sha256: str = ""
    scene: np.ndarray | None = None
    psnr: float | None = None
    sixteen_bits: bool = False


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    set_max_megapixels(options.max_megapixels)
    pairing = _pairing(options)
    with ProcessPoolExecutor(options.workers) as pool:
        checked = _map(pool, check_pair, pairing.pairs, "images")
        faults = [
            *(f"{path}: has no gt image" for path in pairing.lq_alone),
            *(f"{path}: has no lq image" for path in pairing.gt_alone),
            *(fault for each in checked for fault in each.faults),
            *_duplicates(checked),
        ]
        scenes = _scenes(checked)
        _print_summary(checked, scenes)
        if pairing.left_out:
            print(f"left out        {len(pairing.left_out)} images that belong to no pair")
        for finding in findings(_seen(options, pairing, checked)):
            if finding.is_fault:
                faults.append(finding.text)
            else:
                print(f"version         {finding.text}")
        only_clean = not options.layout and not options.lq
        faults += _test_images(scenes, only_clean)
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


def _seen(options: argparse.Namespace, pairing: Pairing, checked: list[Checked]) -> Seen:
    """Return the properties by which versions of public sets are recognised."""
    readable = [each for each in checked if each.scene is not None]
    psnrs = [each.psnr for each in readable if each.psnr is not None]
    return Seen(
        label=label_of(options.layout, options.dataroot, options.lq, options.gt),
        pairs=len(pairing.pairs),
        sizes=Counter(each.size for each in readable),
        names=[pair.name.rpartition("/")[2] for pair in pairing.pairs],
        psnr=float(np.mean(psnrs)) if psnrs else None,
        lq_alone=len(pairing.lq_alone),
        gt_alone=len(pairing.gt_alone),
        sixteen_bits=any(each.sixteen_bits for each in readable),
        folders=_folders(options.dataroot),
    )


def _folders(root: str | None) -> frozenset[str]:
    """Return the names of the folders in the root of a set and in these."""
    if root is None:
        return frozenset()
    found = [path for pattern in ("*", "*/*") for path in expanded(root).glob(pattern)]
    return frozenset(path.name for path in found if path.is_dir())


def _test_images(scenes: dict[Path, np.ndarray], only_clean: bool) -> list[str]:
    """Look for images of test sets: return faults in clean images, which are for denoisers.

    Those of other sets, and of the deraining test sets, are printed.
    """
    faults = []
    for name, hashes in known_scenes().items():
        found = shared_scenes(scenes, hashes)
        if len(found) == len(scenes) == len(hashes):  # this is the test set
            continue
        if only_clean and name != "Rain100":
            if name == "BSD68":
                found += called_like(hashes, scenes.keys() - {each.path for each in found})
            faults += [
                f"{each.path}: is image {each.other} of the test set {name}; leave it out of "
                "training"
                for each in found
            ]
        elif found:
            examples = ", ".join(f"{each.path.name} = {each.other}" for each in found[:3])
            print(f"test images     {len(found)} show scenes of {name} ({examples}, ...)")
    return faults


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    parser.add_argument("--dataroot", help="folder of a public data set")
    parser.add_argument("--layout", choices=LAYOUTS, metavar="NAME", help=", ".join(LAYOUTS))
    parser.add_argument("--lq", help="folder of degraded images")
    parser.add_argument(
        "--gt",
        help="folder of ground-truth images with the same names, or of clean images alone",
    )
    parser.add_argument(
        "--pairing",
        nargs=2,
        metavar=("LQ", "GT"),
        help="names of the files of a pair, such as '{name}_s{a}' '{name}'",
    )
    parser.add_argument("--list", metavar="FILE", help="text file that lists pairs or gt images")
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
    rule: PairingRule | None = None
    if options.pairing:
        rule = {"lq": options.pairing[0], "gt": options.pairing[1]}
    if options.lq and options.gt and not (options.dataroot or options.layout):
        lq, gt = expanded(options.lq), expanded(options.gt)
        if options.list:
            return match_list(expanded(options.list), lq, gt, rule)
        return match_rule(rule, lq, gt) if rule else match_folders(lq, gt)
    if rule or options.list:
        raise OptionsError("arguments: --pairing and --list go with --lq and --gt")
    if options.gt and not (options.dataroot or options.layout or options.lq):
        images = images_by_stem(expanded(options.gt))
        return Pairing([PairFiles(name, path, path) for name, path in images.items()], [], [], "")
    raise OptionsError("arguments: give --dataroot and --layout, or --lq and --gt, or --gt alone")


def _map(pool: ProcessPoolExecutor, function, items: list, title: str) -> list:
    """Apply `function` to all items in parallel, with a progress bar."""
    results = pool.map(function, items, chunksize=8)
    return list(tqdm(results, total=len(items), desc=title, disable=None, leave=False))


def check_pair(files: PairFiles) -> Checked:
    """Decode a pair and return its faults and properties; `lq` of clean images is their `gt`."""
    images: dict[Path, np.ndarray] = {}
    faults = []
    for path in dict.fromkeys(filter(None, (files.lq, files.gt, files.lq_right))):
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
    is_pair = files.lq != files.gt or files.lq_side is not None
    error = np.square(lq[..., :3].astype(np.float32) - gt).mean() if is_pair else 0.0
    if is_pair and error == 0:
        faults.append(f"{files.lq}: is equal to its gt image")
    digest = hashlib.sha256(np.ascontiguousarray(lq)).hexdigest()
    return Checked(
        files,
        faults,
        (gt.shape[1], gt.shape[0]),
        digest,
        scene_block(gt),
        float(10 * np.log10(255**2 / error)) if error else None,
        image_format(files.gt, "as_stored", "as_stored").dtype == np.uint16,
    )


def _scene_of_file(path: Path) -> np.ndarray | None:
    try:
        return scene_block(read_image(path))
    except DataError as error:
        print(f"skipped in the comparison: {error}", file=sys.stderr)
        return None


def _scenes(checked: list[Checked]) -> dict[Path, np.ndarray]:
    """Return the coarse structure of the readable pairs by gt file."""
    return {each.files.gt: each.scene for each in checked if each.scene is not None}


def _scenes_in(pool: ProcessPoolExecutor, root: str, layout: str | None) -> dict[Path, np.ndarray]:
    if layout:
        return _scenes(_map(pool, check_pair, match(root, layout).pairs, "others"))
    folder = expanded(root)
    paths = list(images_by_stem(folder).values()) if is_lmdb(folder) else list_images(folder)
    scenes = zip(paths, _map(pool, _scene_of_file, paths, "others"), strict=True)
    return {path: scene for path, scene in scenes if scene is not None}


def _shared(scenes: dict[Path, np.ndarray], others: dict[Path, np.ndarray]) -> list[SharedScene]:
    """Return the images whose scene appears among `others`, each with the closest of these."""
    return shared_scenes(scenes, {str(path): scene_hash(block) for path, block in others.items()})


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
    repeated = repeated_scenes(scenes)
    print(f"gt images       {len(scenes)}, {repeated} show the scene of an earlier one")


if __name__ == "__main__":
    main()
