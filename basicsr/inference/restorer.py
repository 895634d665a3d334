"""From an image of any size to its restored image."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from basicsr.archs import fitting_side, ops
from basicsr.archs.rows import Keep, Plan, Rows
from basicsr.inference.captured import CapturedNetwork
from basicsr.utils.devices import PRECISIONS, available_memory, is_out_of_memory, memory_in_use
from basicsr.utils.errors import OptionsError

logger = logging.getLogger("basicsr")


IMAGE_COPIES = 4  # of three channels in float32, around the network
LARGE = 2**18  # pixels from which on images on a CPU are computed in strips, to save memory
LIBRARIES = 2**27  # bytes that PyTorch's libraries take at their first use


class Restorer:
    """Calls `network` on whole images.

    Args:
        precision: "bf16" runs the network under autocast.
        memory_gib: what may be taken: by the process on a CPU, by its tensors on a GPU. Images are
            then computed in strips that fit, with the result of the whole image; so are, with a
            message, those that the device's memory does not hold otherwise, and large ones on a
            CPU, where that takes a fraction of the memory and some more time.
        features: where strips keep feature maps: in "memory", there in half the space as "bf16",
            which rounds them, or on "disk", in temporary files, what half the memory cannot hold.
        tile: side of the square pieces that are restored one by one, in pixels; None for the
            whole image at once. Pieces do not see each other, so the result is another one.
        tile_overlap: pixels by which neighbouring pieces overlap; they are blended linearly there.
        self_ensemble: average over the eight flips and quarter turns of the image.
    """

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        precision: str = "fp32",
        tile: int | None = None,
        tile_overlap: int = 32,
        self_ensemble: bool = False,
        memory_gib: float | None = None,
        features: Keep = "memory",
    ) -> None:
        if precision not in PRECISIONS:
            raise OptionsError(f"precision: '{precision}' is none of {', '.join(PRECISIONS)}")
        self.in_strips = bool(getattr(network, "takes_rows", False))
        if memory_gib is not None and not self.in_strips:
            raise OptionsError(
                f"memory_gib: {type(network).__name__} cannot be computed in strips; leave it out "
                "and restore in overlapping pieces (tile: 512)"
            )
        if tile is not None:
            logger.warning(
                "tile: images of more than %d pixels a side are restored in pieces that do not see "
                "each other, which changes the result",
                tile,
            )
        self.network = network.eval().to(device).to(memory_format=torch.channels_last)
        self.call = CapturedNetwork(self.network) if ops.FAST_GPU else self.network
        self.device = device
        self.precision = precision
        self.tile = tile
        self.tile_overlap = tile_overlap
        self.self_ensemble = self_ensemble
        self.memory_gib = memory_gib
        self.features = features

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The restored H x W x C float32 image, in [0, 1], of uint8 or uint16, any H, W >= 1."""
        x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
        x = x if image.dtype == np.uint8 else x.float()  # GPUs know little of uint16
        x = x.to(self.device).float().div(np.iinfo(image.dtype).max)
        restored = self._ensemble(x) if self.self_ensemble else self._pieces(x)
        return restored[0].clamp(0, 1).permute(1, 2, 0).cpu().numpy()

    def _ensemble(self, x: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for turns in range(4):
            for flip in (False, True):
                view = torch.rot90(x, turns, (2, 3))
                view = self._pieces(view.flip(3) if flip else view)
                total += torch.rot90(view.flip(3) if flip else view, -turns, (2, 3))
        return total / 8

    def _pieces(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if self.tile is None or max(height, width) <= self.tile:
            return self._whole(x)
        overlap = min(self.tile_overlap, self.tile - 1)
        total, weight = torch.zeros_like(x), torch.zeros_like(x[:, :1])
        for top, bottom in _spans(height, self.tile, overlap):
            for left, right in _spans(width, self.tile, overlap):
                piece = self._whole(x[:, :, top:bottom, left:right])
                ramp = torch.outer(_ramp(bottom - top, overlap), _ramp(right - left, overlap)).to(x)
                total[:, :, top:bottom, left:right] += piece * ramp
                weight[:, :, top:bottom, left:right] += ramp
        return total / weight

    def _whole(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        x = pad_to(x, fitting_side(self.network, height), fitting_side(self.network, width))
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            restored = self._strips(x) if self._takes_strips(x) else self._at_once(x)
        return restored[:, :, :height, :width].float()

    def _takes_strips(self, x: Tensor) -> bool:
        large = x.device.type == "cpu" and x.shape[2] * x.shape[3] >= LARGE
        return self.memory_gib is not None or (self.in_strips and large)

    def _at_once(self, x: Tensor) -> Tensor:
        try:
            return self.call(x)
        except (RuntimeError, MemoryError) as error:
            if not self.in_strips or not is_out_of_memory(error):
                raise
        logger.warning(
            "%d x %d pixels do not fit into memory at once; they are computed in strips, which "
            "gives the same result",
            x.shape[3],
            x.shape[2],
        )
        return self._strips(x)

    def _strips(self, x: Tensor) -> Tensor:
        """As much as is allowed or, where nothing is said, nine tenths of what is left is taken."""
        if self.memory_gib is None:
            memory = 0.9 * available_memory(x.device)
        else:
            memory = self.memory_gib * 2**30 - memory_in_use(x.device)
        plan = Plan(memory - IMAGE_COPIES * x.nbytes - LIBRARIES, self.features)
        return self.network(Rows.of(x, plan)).whole()


def pad_to(x: Tensor, height: int, width: int) -> Tensor:
    """Extend an N x C x H x W batch at the bottom and right.

    Reflects, and repeats the last row or column where the image is too small to be reflected.
    """
    for axis, wanted in ((2, height), (3, width)):
        missing = wanted - x.shape[axis]
        reflected = min(missing, x.shape[axis] - 1)
        for amount, mode in ((reflected, "reflect"), (missing - reflected, "replicate")):
            if amount:
                x = F.pad(x, (0, 0, 0, amount) if axis == 2 else (0, amount, 0, 0), mode=mode)
    return x


def _spans(length: int, tile: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Pieces [start, end) of `tile` pixels that cover `length`, the last one shifted inwards."""
    if length <= tile:
        yield 0, length
        return
    for start in range(0, length - overlap, tile - overlap):
        start = min(start, length - tile)
        yield start, start + tile


def _ramp(length: int, overlap: int) -> Tensor:
    """Weights that rise over the overlap and fall again, never zero."""
    position = torch.arange(1, length + 1, dtype=torch.float32)
    return torch.minimum(position, position.flip(0)).clamp(max=overlap + 1)
