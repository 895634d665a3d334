"""Restore one image of any size: pad it, run the network, crop the result."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from basicsr.archs import RestorationNetwork
from basicsr.archs.strip_storage import FeatureStorage
from basicsr.archs.strips import forward_in_strips
from basicsr.inference.captured import CapturedNetwork
from basicsr.inference.tiling import restore_tiles
from basicsr.utils.devices import (
    BACKENDS,
    PRECISIONS,
    autocast,
    available_memory,
    is_out_of_memory,
    memory_in_use,
    to_unit_range,
    usable_precision,
)
from basicsr.utils.errors import DataError, NonFiniteError, OptionsError, remedy
from basicsr.utils.ranges import SelfEnsemble

if TYPE_CHECKING:
    from basicsr.inference.openvino_network import OpenVINONetwork

logger = logging.getLogger("basicsr")

LARGE_ON_CPU = 2**19
"""Images of at least this many pixels are computed in strips on a CPU: a fraction of the memory."""
IMAGE_COPIES = 2
"""Float32 copies of the input, and of the output, that exist beside the network's features."""
LIBRARY_BYTES = 2**27
"""Memory that PyTorch's libraries allocate when they are first used."""


@dataclass(frozen=True)
class RestorerSettings:
    """Settings of a Restorer.

    Args:
        precision: "fp32", or "bf16" or "fp16" to run the network under autocast; float32, with a
            warning, if the device has no units for it.
        tile: side in pixels of the square tiles that larger images are restored in, one by one;
            None for the whole image. A tile does not see its surroundings: the result changes.
        tile_overlap: pixels by which neighbouring tiles overlap; they are blended linearly there.
        self_ensemble: average over the eight flips and quarter turns of the image, or, with
            "mirror", over the image and its mirror image: for networks that know what falls down.
        memory_gib: memory budget in GiB: resident memory of the process on a CPU, allocated tensors
            on a GPU. Images are computed in strips that fit in it; the result stays the same.
            Without a budget, only large images on a CPU and images that do not fit in memory are
            computed in strips.
        backend: "pytorch", or "openvino" to compute images on a CPU with OpenVINO. Images for which
            memory does not suffice there are computed in strips by PyTorch.
        features: where strips keep feature maps: in "memory", as "bf16" (rounded, half of the
            memory), or on "disk" (in temporary files, once they fill half of the budget).
    """

    precision: str = "fp32"
    tile: int | None = None
    tile_overlap: int = 32
    self_ensemble: SelfEnsemble = False
    memory_gib: float | None = None
    features: FeatureStorage = "memory"
    backend: str = "pytorch"

    def require_supported(self, network: RestorationNetwork) -> None:
        """Raise OptionsError for a setting that is unknown or that `network` does not support."""
        if self.precision not in PRECISIONS:
            raise OptionsError(f"precision: '{self.precision}' is none of {', '.join(PRECISIONS)}")
        if self.backend not in BACKENDS:
            raise OptionsError(f"backend: '{self.backend}' is none of {', '.join(BACKENDS)}")
        if self.backend == "openvino" and self.precision == "fp16":
            raise OptionsError("precision: OpenVINO computes fp32 or bf16 on a CPU, not fp16")
        if self.memory_gib is not None and not network.supports_strips:
            raise OptionsError(
                f"memory_gib: {type(network).__name__} cannot be computed in strips; remove it, "
                "and restore in overlapping pieces (tile: 512)"
            )


class Restorer:
    """Callable that restores whole images with `network` on `device`.

    Raises OptionsError for an unknown precision, and for a memory budget if the network cannot be
    computed in strips.
    """

    def __init__(
        self,
        network: RestorationNetwork,
        device: torch.device,
        settings: RestorerSettings | None = None,
    ) -> None:
        settings = settings or RestorerSettings()
        settings.require_supported(network)
        self.supports_strips = network.supports_strips
        if settings.tile is not None:
            logger.warning(
                "tile: images of more than %d pixels a side are restored in pieces that do not see "
                "each other, which changes the result",
                settings.tile,
            )
        settings = replace(settings, precision=usable_precision(settings.precision, device))
        self.openvino = None
        if settings.backend == "openvino":
            self.openvino = _in_openvino(network.eval(), device, settings.precision)
        self.network = network.eval().to(device).to(memory_format=torch.channels_last)
        self.call = CapturedNetwork(self.network)
        self.device = device
        self.settings = settings

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Restore an image of any height and width.

        Args:
            image: H x W x C array of uint8, uint16, or float32 with values around [0, 1]. C is the
                network's `in_channels`.

        Returns:
            The restored H x W x C' float32 image, clipped to [0, 1]. C' is `out_channels`.

        Raises:
            DataError: the image has another number of channels.
            NonFiniteError: the network returned NaN or infinite values.
        """
        if image.shape[2] != self.network.in_channels:
            raise DataError(
                f"{type(self.network).__name__}: takes {self.network.in_channels}-channel images, "
                f"not {image.shape[2]}-channel images"
            )
        x = torch.from_numpy(np.ascontiguousarray(image))
        x = to_unit_range(rearrange(x, "h w c -> 1 c h w"), self.device)
        restored = self._ensemble(x) if self.settings.self_ensemble else self._tiled(x)
        if not torch.isfinite(restored).all():
            precision = self.settings.precision
            other = "" if precision == "fp32" else remedy("precision fp32, or ", page="")
            raise NonFiniteError(
                f"{type(self.network).__name__} restored it to NaN or infinite values in "
                f"{precision}; use {other}other weights"
            )
        return rearrange(restored.clamp(0, 1), "1 c h w -> h w c").cpu().numpy()

    def _ensemble(self, x: Tensor) -> Tensor:
        """Average the results for the views of `x` that `self_ensemble` names."""
        turns = range(1) if self.settings.self_ensemble == "mirror" else range(4)
        total = x.new_zeros(len(x), self.network.out_channels, *x.shape[2:])
        for quarters in turns:
            for flip in (False, True):
                total += _undo(self._tiled(_turn(x, quarters, flip)), quarters, flip)
        return total / (2 * len(turns))

    def _tiled(self, x: Tensor) -> Tensor:
        tile = self.settings.tile
        if tile is None:
            return self._whole(x)
        return restore_tiles(self._whole, x, tile, min(self.settings.tile_overlap, tile - 1))

    def _whole(self, x: Tensor) -> Tensor:
        """Restore a batch without tiles: padded to sides that the network takes, then cropped."""
        height, width = x.shape[2:]
        x = pad_to(x, self.network.fitting_side(height), self.network.fitting_side(width))
        if self.openvino is not None and self._fits_openvino(x):
            return self.openvino(x)[:, :, :height, :width]
        x = x.contiguous(memory_format=torch.channels_last)
        with autocast(x.device.type, self.settings.precision):
            restored = self._in_strips(x) if self._needs_strips(x) else self._at_once(x)
        return restored[:, :, :height, :width].float()

    def _fits_openvino(self, x: Tensor) -> bool:
        """Return whether OpenVINO can compute the image, which it does not do in strips."""
        assert self.openvino is not None
        needed, memory = self.openvino.memory(x), self._memory(x)
        if needed <= memory or not self.supports_strips:
            return True
        logger.warning(
            "%d x %d pixels: computed by PyTorch in strips, because OpenVINO may need %.1f GiB and "
            "%.1f are left",
            x.shape[3],
            x.shape[2],
            needed / 2**30,
            max(0, memory) / 2**30,
        )
        return False

    def _needs_strips(self, x: Tensor) -> bool:
        large = x.device.type == "cpu" and x.shape[2] * x.shape[3] >= LARGE_ON_CPU
        return self.settings.memory_gib is not None or (self.supports_strips and large)

    def _at_once(self, x: Tensor) -> Tensor:
        """Run the network on the whole batch, or in strips if that runs out of memory."""
        try:
            return self.call(x)
        except (RuntimeError, MemoryError) as error:
            if not self.supports_strips or not is_out_of_memory(error):
                raise
        # outside of the handler, so that the traceback does not keep the features alive
        height, width = x.shape[2:]
        logger.warning(
            "%d x %d pixels do not fit into memory at once; they are computed in strips, which "
            "gives the same result",
            width,
            height,
        )
        return self._in_strips(x)

    def _in_strips(self, x: Tensor) -> Tensor:
        """Run the network within the memory budget, or within 90 % of the free memory."""
        return forward_in_strips(self.network, x, self._memory(x), self.settings.features)

    def _memory(self, x: Tensor) -> float:
        """Return the bytes that features may take, beside copies of the image."""
        if self.settings.memory_gib is None:
            memory = 0.9 * available_memory(x.device)
        else:
            memory = self.settings.memory_gib * 2**30 - memory_in_use(x.device)
        pixel_bytes = 4 * (self.network.in_channels + self.network.out_channels)
        images = IMAGE_COPIES * pixel_bytes * x.shape[2] * x.shape[3]
        return memory - images - LIBRARY_BYTES


def _in_openvino(
    network: RestorationNetwork, device: torch.device, precision: str
) -> OpenVINONetwork:
    if device.type != "cpu":
        raise OptionsError(f"backend: openvino computes on the CPU, not on {device}; use pytorch")
    from basicsr.inference.openvino_network import OpenVINONetwork

    return OpenVINONetwork(network, precision)


def pad_to(x: Tensor, height: int, width: int) -> Tensor:
    """Pad an N x C x H x W batch at the bottom and right to `height` x `width`.

    Pads by reflection, and by repeating the last row or column where the image is too small to be
    reflected.
    """
    for axis, side in ((2, height), (3, width)):
        missing = side - x.shape[axis]
        reflected = min(missing, x.shape[axis] - 1)
        for amount, mode in ((reflected, "reflect"), (missing - reflected, "replicate")):
            if amount:
                x = F.pad(x, (0, 0, 0, amount) if axis == 2 else (0, amount, 0, 0), mode=mode)
    return x


def _turn(x: Tensor, quarters: int, flip: bool) -> Tensor:
    """Rotate N x C x H x W images by quarter turns, then flip them left to right."""
    x = torch.rot90(x, quarters, (2, 3))
    return x.flip(3) if flip else x


def _undo(x: Tensor, quarters: int, flip: bool) -> Tensor:
    """Invert `_turn`."""
    return torch.rot90(x.flip(3) if flip else x, -quarters, (2, 3))
