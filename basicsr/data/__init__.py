"""Data sets: options -> images by index -> training batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from basicsr.utils.registry import DATASET_REGISTRY

from .bad_images import BadImages
from .folder_dataset import ImageFolderDataset
from .image_files import list_images, read_image, write_png
from .image_source import ImagePair, ImageSource
from .layouts import LAYOUTS
from .loader import PatchStage, TrainingBatch, training_batches
from .mixed_dataset import MixedDataset
from .paired_dataset import PairedImageDataset
from .rain import Rain, Streaks, render_rain
from .synthetic_dataset import SyntheticRainDataset

__all__ = [
    "LAYOUTS",
    "BadImages",
    "ImageFolderDataset",
    "ImagePair",
    "ImageSource",
    "MixedDataset",
    "PairedImageDataset",
    "PatchStage",
    "Rain",
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


def build_dataset(options: Mapping[str, Any]) -> ImageSource:
    """The data set that `options` describe: a registered `type` and its constructor's arguments."""
    return DATASET_REGISTRY.build(options)
