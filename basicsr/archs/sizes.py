"""The sides of images that a network can take."""

from __future__ import annotations

from torch import Tensor


def require_multiple(image: Tensor, multiple: int) -> None:
    """Raise ValueError unless height and width of `image` are multiples of `multiple`."""
    height, width = image.shape[-2:]
    if height % multiple or width % multiple:
        raise ValueError(f"height and width must be multiples of {multiple}, not {height}x{width}")
