"""Base class of the data sets that degrade ground-truth images while training."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from basicsr.data.base import ImagePair, RestorationDataset
from basicsr.data.decode_cache import CacheKind, DecodeCache
from basicsr.data.sampling import Split, choose
from basicsr.data.stored_images import StoredImages, warn_of_reduced_depth
from basicsr.io.images import BitDepth, Color, images_by_stem
from basicsr.utils.errors import DataError
from basicsr.utils.files import expanded
from basicsr.utils.ranges import Seed
from basicsr.utils.registry import suggest

Files = tuple[str, ...] | str | None


class SyntheticDataset(RestorationDataset):
    """Images of a folder, which `degrade` of a subclass degrades.

    In training every patch is degraded differently; `sample` returns each image with one
    degradation, fixed by `seed`.

    Args:
        dataroot_gt: folder of the ground truth; "skimage" for the example images that scikit-image
            installs.
        files: names or patterns (`*`, `?`) of the images to use, relative to the folder and with
            suffix, or a text file with one of them per line; all if None.
        split: "train" or "val" part of the images.
        seed: seed of `sample`.
        color: "rgb", "gray", or "as_stored" in the files, which must then agree.
        bit_depth: 8, 16, or "as_stored" in the files, which must then agree.
        cache: where decoded images are kept; see `DecodeCache`.
        cache_gib: size of the cache.

    Raises:
        DataError: there is no image, or none that matches one of `files`, or the text file cannot
            be read.
    """

    synthetic = True

    def __init__(
        self,
        dataroot_gt: str,
        files: Files,
        split: Split,
        seed: Seed,
        color: Color,
        bit_depth: BitDepth,
        cache: CacheKind,
        cache_gib: float,
    ) -> None:
        folder = _skimage_folder() if dataroot_gt == "skimage" else expanded(dataroot_gt)
        images = images_by_stem(folder)
        if files is not None:
            images = _matching(images, folder, _patterns(files))
        self.names = choose(split, list(images), list(images))
        self.paths = [images[name] for name in self.names]
        self.seed = seed
        decode = DecodeCache(self.paths, cache, cache_gib, color, bit_depth)
        self._gt = StoredImages(self.paths, decode)
        warn_of_reduced_depth(self._gt)
        self.bit_depth = self._gt.bit_depth
        self.lq_channels = self.gt_channels = self._gt.channels

    def read(self, index: int) -> ImagePair:
        """Return the ground truth twice: it is degraded after cropping."""
        gt = self._gt(self.paths[index])
        return ImagePair(gt, gt)

    def files(self, index: int) -> Sequence[Path]:
        return (self.paths[index],)


def _patterns(files: tuple[str, ...] | str) -> tuple[str, ...]:
    if not isinstance(files, str):
        return files
    try:
        lines = expanded(files).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{files}: not a text file with names of images ({error})") from None
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise DataError(f"{files}: contains no name of an image")
    return names


def _matching(images: dict[str, Path], folder: Path, files: tuple[str, ...]) -> dict[str, Path]:
    relative = {stem: path.relative_to(folder).as_posix() for stem, path in images.items()}
    for pattern in files:
        if not any(fnmatchcase(file, pattern) for file in relative.values()):
            raise DataError(
                f"{folder}: no image is called '{pattern}'{suggest(pattern, relative.values())}"
            )
    return {
        stem: images[stem]
        for stem, file in relative.items()
        if any(fnmatchcase(file, pattern) for pattern in files)
    }


def _skimage_folder() -> Path:
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise DataError("dataroot_gt: skimage needs scikit-image; pip install scikit-image")
    return Path(found.origin).parent / "data"
