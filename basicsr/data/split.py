"""A fixed split into training and validation images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

from basicsr.utils.errors import DataError

from .image_files import natural_key

Split = Literal["all", "train", "val"]
Item = TypeVar("Item")
VAL_EVERY = 10


def choose(split: Split, items: Sequence[Item], clean: Sequence[str]) -> list[Item]:
    """The items of a split, in their order; `clean` names the clean image of each.

    Every tenth clean image, in natural order, is for validation together with all rainy versions
    of it; the rest is for training.
    """
    if split == "all":
        return list(items)
    val = set(sorted(set(clean), key=natural_key)[::VAL_EVERY])
    chosen = [
        item for item, name in zip(items, clean, strict=True) if (name in val) == (split == "val")
    ]
    if not chosen:
        raise DataError(
            f"split {split} is empty: the only clean image is {clean[0]}; use split: all"
        )
    return chosen
