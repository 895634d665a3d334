"""Cut the images of one item of a data set, as the scripts of Restormer cut them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from basicsr.io.images import image_size, read_image, write_png
from basicsr.utils.errors import DataError

_SOBEL_SIZES = (3, 7, 11, 15)


class Item(NamedTuple):
    """Images of one scene: the file of each view, which is also the name of its output folder."""

    name: str
    views: dict[str, Path]


class Cut(NamedTuple):
    """Crops of `size` x `size` pixels, or the whole image where it is smaller.

    Attributes:
        size: side of a crop.
        step: distance between crops, the last flush with the border; None for the central crop.
        only_above: images with a side of at most this many pixels are kept whole.
        dropped: share of the crops of an image that is dropped, those with the blurriest target.
    """

    size: int
    step: int | None = None
    only_above: int = 0
    dropped: float = 0.0

    def corners(self, height: int, width: int) -> list[tuple[int, int]] | None:
        """Return (top, left) of the crops, row by row; None for an image that is kept whole."""
        if min(height, width) <= self.only_above:
            return None
        if self.step is None:
            return [(max(0, height - self.size) // 2, max(0, width - self.size) // 2)]
        return [
            (top, left)
            for top in _positions(height, self.size, self.step)
            for left in _positions(width, self.size, self.step)
        ]


def _positions(side: int, size: int, step: int) -> list[int]:
    last = max(0, side - size)
    return [*range(0, last, step), last]


def cut_item(cut: Cut, output: Path, item: Item) -> list[Path]:
    """Write the crops of an item that are not there yet, and return the files of all.

    Crop k of view v is OUTPUT/v/NAME-k.png with k from 1; central crops and whole images are
    OUTPUT/v/NAME.png. Bit depth and channels stay as they are stored. Raises DataError if a file
    cannot be read or the views differ in size.
    """
    height, width = _common_size(item)
    corners = cut.corners(height, width)
    if corners is None or cut.step is None:
        names = [f"{item.name}.png"]
    else:
        kept = len(corners) - int(cut.dropped * len(corners))
        names = [f"{item.name}-{number}.png" for number in range(1, kept + 1)]
    files = {view: [output / view / name for name in names] for view in item.views}
    every = [path for paths in files.values() for path in paths]
    if all(path.exists() for path in every):
        return every

    images = {view: read_image(p, "as_stored", "as_stored") for view, p in item.views.items()}
    if corners is None:
        cut, corners = Cut(max(height, width)), [(0, 0)]
    if cut.dropped:
        corners = keep_sharpest(images["target_crops"], corners, cut)
    for view, image in images.items():
        for (top, left), path in zip(corners, files[view], strict=True):
            if not path.exists():
                write_png(path, image[top : top + cut.size, left : left + cut.size])
    return every


def _common_size(item: Item) -> tuple[int, int]:
    sizes = {path: image_size(path) for path in item.views.values()}
    (first, size), *others = sizes.items()
    for path, other in others:
        if other != size:
            raise DataError(
                f"{first} is {size[1]}x{size[0]} but {path} is {other[1]}x{other[0]} (width x "
                "height); the views of an image must have one size"
            )
    return size


def keep_sharpest(
    target: np.ndarray, corners: Sequence[tuple[int, int]], cut: Cut
) -> list[tuple[int, int]]:
    """Drop the crops whose target is blurriest, by the rule of the DPDD data set.

    The sharpness of a crop is the product, over four sizes of the Sobel filter, of its summed
    gradient magnitude, scaled so that the crops of the image range from 0 to 1 (Abuolaim and Brown,
    "Defocus deblurring using dual-pixel data", ECCV 2020, and the authors' code). The filter sees
    the crop only: at its border, pixels are reflected.
    """
    sums = np.array(
        [
            _gradient_sums(target[top : top + cut.size, left : left + cut.size])
            for top, left in corners
        ]
    )
    spread = np.ptp(sums, axis=0)
    sharpness = np.prod((sums - sums.min(axis=0)) / np.where(spread == 0, 1, spread), axis=1)
    # of equal crops the first is dropped, as the published loop over argmin does
    blurriest = np.argsort(sharpness, kind="stable")[: int(cut.dropped * len(corners))]
    return [corner for number, corner in enumerate(corners) if number not in blurriest]


def _gradient_sums(crop: np.ndarray) -> list[float]:
    import cv2

    crop = np.ascontiguousarray(crop)
    gray = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) if crop.shape[2] == 3 else crop[..., 0]
    sums = []
    for size in _SOBEL_SIZES:
        right = cv2.Sobel(gray, cv2.CV_64F, 1, 0, ksize=size)
        down = cv2.Sobel(gray, cv2.CV_64F, 0, 1, ksize=size)
        sums.append(float(np.sqrt(right * right + down * down).sum()))
    return sums
