"""Data sets, and the loader that makes training batches of them.

Every `*_dataset.py` of this folder registers its class; option files name it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from basicsr.data.base import ImagePair, RestorationDataset
from basicsr.data.degradations.rain import Rain, Streaks, render_rain
from basicsr.data.folder_dataset import ImageFolderDataset
from basicsr.data.layouts import LAYOUTS
from basicsr.data.mixed_dataset import MixedDataset
from basicsr.data.noise_dataset import GaussianNoiseDataset
from basicsr.data.paired_dataset import PairedImageDataset
from basicsr.data.rain_dataset import SyntheticRainDataset
from basicsr.data.rain_swap_dataset import RainSwapDataset
from basicsr.data.rain_transplant_dataset import RainTransplantDataset
from basicsr.data.sampling import SampleStage
from basicsr.io.images import list_images, read_image, write_png
from basicsr.utils.registry import DATASET_REGISTRY, import_modules

__all__ = [
    "LAYOUTS",
    "BadImages",
    "GaussianNoiseDataset",
    "ImageFolderDataset",
    "ImagePair",
    "LoaderSettings",
    "MixedDataset",
    "PairedImageDataset",
    "Rain",
    "RainSwapDataset",
    "RainTransplantDataset",
    "RestorationDataset",
    "SampleStage",
    "Streaks",
    "SyntheticRainDataset",
    "TrainingBatch",
    "build_dataset",
    "list_images",
    "read_image",
    "render_rain",
    "training_batches",
    "write_png",
]

if TYPE_CHECKING:
    from basicsr.data.loader import BadImages, LoaderSettings, TrainingBatch, training_batches

import_modules(__name__, __path__, "_dataset")


def __getattr__(name: str) -> Any:
    """Import the loader at its first use: PyTorch, which it needs, is slow to load."""
    if name in ("BadImages", "LoaderSettings", "TrainingBatch", "training_batches"):
        return getattr(importlib.import_module(f"{__name__}.loader"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")


def build_dataset(options: Mapping[str, Any]) -> RestorationDataset:
    """Build the registered data set that `options["type"]` names; other keys are its arguments."""
    dataset: RestorationDataset = DATASET_REGISTRY.build(options)
    return dataset
