"""Data sets: options -> images by index -> training batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..utils.registry import DATASET_REGISTRY
from .image_files import list_images, read_image, write_png
from .image_source import ImagePair, ImageSource
from .layouts import LAYOUTS
from .loader import PatchStage, TrainingBatch, training_batches
from .paired_dataset import PairedImageDataset

__all__ = [
    "LAYOUTS",
    "ImagePair",
    "ImageSource",
    "PairedImageDataset",
    "PatchStage",
    "TrainingBatch",
    "build_dataset",
    "list_images",
    "read_image",
    "training_batches",
    "write_png",
]


def build_dataset(options: Mapping[str, Any]) -> ImageSource:
    """The data set that `options` describe: a registered `type` and its constructor's arguments."""
    return DATASET_REGISTRY.build(options)
