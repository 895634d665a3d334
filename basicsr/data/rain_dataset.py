"""Clean photographs that rain is drawn onto while training."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from basicsr.data.base import ImagePair, RestorationDataset
from basicsr.data.decode_cache import CacheKind, DecodeCache
from basicsr.data.degradations.rain import Preset, render_rain
from basicsr.data.sampling import Split, choose
from basicsr.io.images import images_by_stem
from basicsr.utils.errors import DataError
from basicsr.utils.registry import DATASET_REGISTRY, suggest


@DATASET_REGISTRY.register
class SyntheticRainDataset(RestorationDataset):
    """Rain of a preset over the photographs of a folder, or over those that `files` names.

    `files` are names or patterns (`*`, `?`) relative to the folder, suffix included. The folder
    `skimage` is the one with the example images that scikit-image installs. In training the rain is
    drawn anew onto every patch; `sample` shows each image under one rain, fixed by `seed`. Raises
    DataError where there is no image, or none with a given name.
    """

    synthetic = True

    def __init__(
        self,
        dataroot_gt: str,
        files: tuple[str, ...] | None = None,
        rain: Preset = "light",
        split: Split = "all",
        seed: int = 0,
        cache: CacheKind = "none",
        cache_gib: float = 4.0,
    ) -> None:
        folder = _skimage_folder() if dataroot_gt == "skimage" else Path(dataroot_gt)
        photographs = images_by_stem(folder)
        if files is not None:
            photographs = _named(photographs, folder, files)
        self.names = choose(split, list(photographs), list(photographs))
        self.paths = [photographs[name] for name in self.names]
        self.rain, self.seed = rain, seed
        self.description = f"{rain} rain"
        self._decode = DecodeCache(self.paths, cache, cache_gib)

    def read(self, index: int) -> ImagePair:
        clean = self._decode(self.paths[index])
        return ImagePair(clean, clean)

    def files(self, index: int) -> Sequence[Path]:
        return (self.paths[index],)

    def render(self, index: int, pair: ImagePair, rng: np.random.Generator) -> ImagePair:
        assert pair.gt is not None
        return ImagePair(render_rain(pair.gt, self.rain, rng), pair.gt)


def _named(photographs: dict[str, Path], folder: Path, files: tuple[str, ...]) -> dict[str, Path]:
    relative = {stem: path.relative_to(folder).as_posix() for stem, path in photographs.items()}
    for pattern in files:
        if not any(fnmatchcase(file, pattern) for file in relative.values()):
            raise DataError(
                f"{folder}: no image is called '{pattern}'{suggest(pattern, relative.values())}"
            )
    return {
        stem: photographs[stem]
        for stem, file in relative.items()
        if any(fnmatchcase(file, pattern) for pattern in files)
    }


def _skimage_folder() -> Path:
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise DataError("dataroot_gt: skimage needs scikit-image; pip install scikit-image")
    return Path(found.origin).parent / "data"
