"""Overlapping square tiles of an image, restored one by one and blended."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def restore_tiles(
    restore: Callable[[Tensor], Tensor], image: Tensor, tile: int, overlap: int
) -> Tensor:
    """Restore an image tile by tile; neighbouring tiles are blended linearly where they overlap.

    Args:
        restore: maps N x C x h x w to N x C' x h x w.
        image: N x C x H x W.
        tile: side of the tiles in pixels. An image that is no larger is a single tile.
        overlap: pixels by which neighbouring tiles overlap, less than `tile`.

    Returns:
        The restored N x C' x H x W image.
    """
    height, width = image.shape[2:]
    if max(height, width) <= tile:
        return restore(image)
    weights = image.new_zeros(1, 1, height, width)
    total: Tensor | None = None
    for top, bottom in tile_spans(height, tile, overlap):
        for left, right in tile_spans(width, tile, overlap):
            restored = restore(image[:, :, top:bottom, left:right])
            if total is None:  # its channels may differ from those of the image
                total = restored.new_zeros(*restored.shape[:2], height, width)
            rows, columns = _ramp(bottom - top, overlap), _ramp(right - left, overlap)
            window = torch.outer(rows, columns).to(restored)
            total[:, :, top:bottom, left:right] += restored * window
            weights[:, :, top:bottom, left:right] += window
    assert total is not None
    return total / weights


def tile_spans(length: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Return spans [start, end) of `tile` pixels that cover `length`; the last one ends there."""
    if length <= tile:
        return [(0, length)]
    starts = range(0, length - overlap, tile - overlap)
    last = length - tile
    return [(min(start, last), min(start, last) + tile) for start in starts]


def _ramp(length: int, overlap: int) -> Tensor:
    """Blending weights that rise over the overlap and fall again; all are positive."""
    position = torch.arange(1, length + 1, dtype=torch.float32)
    return torch.minimum(position, position.flip(0)).clamp(max=overlap + 1)
