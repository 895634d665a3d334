"""Data sets: options -> images by index -> training batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from basicsr.data.bad_images import BadImages
from basicsr.data.base import ImagePair, RestorationDataset
from basicsr.data.degradations.rain import Rain, Streaks, render_rain
from basicsr.data.folder_dataset import ImageFolderDataset
from basicsr.data.layouts import LAYOUTS
from basicsr.data.loader import SampleStage, TrainingBatch, training_batches
from basicsr.data.mixed_dataset import MixedDataset
from basicsr.data.paired_dataset import PairedImageDataset
from basicsr.data.rain_dataset import SyntheticRainDataset
from basicsr.io.images import list_images, read_image, write_png
from basicsr.utils.registry import DATASET_REGISTRY

__all__ = [
    "LAYOUTS",
    "BadImages",
    "ImageFolderDataset",
    "ImagePair",
    "MixedDataset",
    "PairedImageDataset",
    "Rain",
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


def build_dataset(options: Mapping[str, Any]) -> RestorationDataset:
    """The data set that `options` describe: a registered `type` and its constructor's arguments."""
    return DATASET_REGISTRY.build(options)
