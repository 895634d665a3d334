"""Perceptual hashes of images, by which photographs of the same scene are found.

`known_scenes.txt` holds those of public test sets, so that an overlap is found without them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.fft import dctn

# Hashes of different photographs of BSDS500 differ in at least 82 of 255 bits, over all eight
# orientations; those of an image and its degraded, cropped, turned, halved or recompressed version
# in at most 62
SAME_SCENE = 75

_SIDE = 16
_KNOWN_SCENES = Path(__file__).parent / "known_scenes.txt"


class SharedScene(NamedTuple):
    """Image whose scene is shown by an image of another set."""

    path: Path
    other: str


def scene_block(image: np.ndarray) -> np.ndarray:
    """Return the 16 x 16 lowest DCT coefficients of a thumbnail: the coarse structure."""
    gray = image[..., 0] if image.shape[2] == 1 else image
    thumbnail = Image.fromarray(gray).convert("L").resize((64, 64), Image.Resampling.BOX)
    return dctn(np.asarray(thumbnail, np.float32))[:_SIDE, :_SIDE]


def scene_hash(block: np.ndarray) -> np.ndarray:
    """Return which coefficients, without the constant one, are above their median: -1 or 1."""
    coarse = block.ravel()[1:]
    return np.where(coarse > np.median(coarse), 1, -1).astype(np.float32)


def turned_hashes(block: np.ndarray) -> np.ndarray:
    """Return the 8 x 255 hashes of the image in all orientations."""
    signs = np.where(np.arange(_SIDE) % 2, -1, 1)  # of the coefficients, when an axis is mirrored
    blocks = []
    for each in (block, block.T):
        for rows in (1, signs[:, None]):
            blocks += [each * rows, each * rows * signs]
    return np.stack([scene_hash(each) for each in blocks])


def shared_scenes(
    blocks: Mapping[Path, np.ndarray], others: Mapping[str, np.ndarray]
) -> list[SharedScene]:
    """Return the images whose scene appears in another set, in any orientation.

    Args:
        blocks: coefficients of the images.
        others: hashes of the images of the other set.
    """
    if not others:
        return []
    names, matrix = list(others), np.stack(list(others.values())).T
    found = []
    for path, block in blocks.items():
        products = (turned_hashes(block) @ matrix).max(axis=0)
        distances = (matrix.shape[0] - products) / 2  # Hamming distance of values of -1 and 1
        if distances.min() <= SAME_SCENE:
            found.append(SharedScene(path, names[int(distances.argmin())]))
    return found


def called_like(names: Collection[str], paths: Iterable[Path]) -> list[SharedScene]:
    """Return the files with a number of BSDS500 in their names, such as crops: `101085-3.png`.

    Args:
        names: the numbers that are looked for.
        paths: the files.
    """
    found = []
    for path in sorted(paths):
        numbers = {path.stem, *re.findall(r"(?<!\d)[1-9]\d{4,5}(?!\d)", path.stem)}
        found += [SharedScene(path, number) for number in sorted(numbers & set(names))]
    return found


def repeated_scenes(blocks: Mapping[Path, np.ndarray]) -> int:
    """Count the images whose scene appears in an earlier image too."""
    hashes = np.stack([scene_hash(block) for block in blocks.values()])
    return sum(
        bool((len(scene) - hashes[:row] @ scene).min() / 2 <= SAME_SCENE)
        for row, scene in enumerate(hashes)
        if row
    )


def known_scenes() -> dict[str, dict[str, np.ndarray]]:
    """Return the hashes of public test sets: set -> name of the image -> hash."""
    scenes: dict[str, dict[str, np.ndarray]] = {}
    for line in _KNOWN_SCENES.read_text().splitlines():
        name, image, code = line.split()
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(code), np.uint8))[: _SIDE**2 - 1]
        scenes.setdefault(name, {})[image] = bits.astype(np.float32) * 2 - 1
    return scenes


def scene_line(name: str, image: str, block: np.ndarray) -> str:
    """Return the line of `known_scenes.txt` for an image."""
    return f"{name} {image} {np.packbits(scene_hash(block) > 0).tobytes().hex()}"
