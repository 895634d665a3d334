"""The sides of images that a network can take."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def require_multiple(image: Tensor, multiple: int) -> None:
    """Raise ValueError unless height and width of `image` are multiples of `multiple`."""
    height, width = image.shape[-2:]
    if height % multiple or width % multiple:
        raise ValueError(f"height and width must be multiples of {multiple}, not {height}x{width}")


def fitting_side(network: nn.Module, side: int) -> int:
    """The smallest side of at least `side` pixels that `network` takes."""
    multiple: Any = network.size_multiple
    return -(-side // multiple) * multiple
