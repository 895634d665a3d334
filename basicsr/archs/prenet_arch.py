"""PReNet: *Progressive Image Deraining Networks: A Better and Simpler Baseline*, CVPR 2019.

The same small network is applied repeatedly, to the degraded image and to its own last result.
Layout of the published weights: github.com/csdwren/PReNet, `networks.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from basicsr.archs.base import Channels, Count, RestorationNetwork
from basicsr.archs.conv3x3 import Conv3x3
from basicsr.archs.conv_lstm import ConvGRUCell, ConvLSTMCell
from basicsr.archs.released import Released, strict_load
from basicsr.archs.strips import row_local
from basicsr.utils.registry import ARCH_REGISTRY

logger = logging.getLogger(__name__)

ImageResidual = Literal["rainy", "last", "none"]

RES_BLOCKS = 5
RECEPTIVE_FIELD = 2 * RES_BLOCKS + 4  # radius of a pass in pixels; a GRU has two 3x3 convolutions


def _residual_branch(channels: int) -> nn.Sequential:
    return nn.Sequential(
        Conv3x3(channels, channels),
        nn.ReLU(inplace=True),
        Conv3x3(channels, channels),
        nn.ReLU(inplace=True),
    )


@ARCH_REGISTRY.register
class PReNet(RestorationNetwork):
    """Passes of convolution, recurrent unit, five residual blocks and convolution.

    With twice as many input as output channels (a left and a right view), the mean of the two views
    is the first estimate, and the image that is added.

    Args:
        recurrent_iter: number of passes.
        channels: channels of the features.
        recurrent_unit: unit that carries features from pass to pass.
        shared_block: use one residual block five times.
        image_input: show the degraded image to every pass, beside the last result.
        image_residual: image that is added to the output of a pass: the degraded ("rainy") image,
            the last result, or none.
        in_channels: channels of the input images.
        out_channels: channels of the restored images.
    """

    supports_strips = True

    def __init__(
        self,
        recurrent_iter: Count = 6,
        channels: Channels = 32,
        recurrent_unit: Literal["lstm", "gru", "none"] = "lstm",
        shared_block: bool = False,
        image_input: bool = True,
        image_residual: ImageResidual = "rainy",
        in_channels: Channels = 3,
        out_channels: Channels = 3,
    ) -> None:
        super().__init__(in_channels, out_channels)
        self.require_base_image()
        self.recurrent_iter = recurrent_iter
        self.image_input = image_input
        self.image_residual = image_residual
        seen = in_channels + out_channels if image_input else out_channels
        self.conv_in = Conv3x3(seen, channels)
        self.recurrent: ConvLSTMCell | ConvGRUCell | None = None
        if recurrent_unit != "none":
            self.recurrent = (ConvLSTMCell if recurrent_unit == "lstm" else ConvGRUCell)(channels)
        self.blocks = nn.ModuleList(
            _residual_branch(channels) for _ in range(1 if shared_block else RES_BLOCKS)
        )
        self.conv_out = Conv3x3(channels, out_channels)

    def forward(
        self, x: Tensor, all_stages: bool = False, start: Tensor | None = None
    ) -> Tensor | list[Tensor]:
        """Return the result of the last pass, or the list of those of all passes.

        Args:
            x: degraded images.
            all_stages: return all passes.
            start: first estimate; the degraded images by default.
        """
        self.check_input(x)
        estimate = self.base_image(x) if start is None else start
        state: tuple[Tensor, ...] = ()
        stages = []
        for _ in range(self.recurrent_iter):
            estimate, *following = self._one_pass(x, estimate, *state)
            state = tuple(following)
            if all_stages:
                stages.append(estimate)
        return stages if all_stages else estimate

    @row_local(halo=RECEPTIVE_FIELD)
    def _one_pass(self, image: Tensor, estimate: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Return the next estimate and, with a recurrent unit, its next state."""
        x = torch.cat([image, estimate], dim=1) if self.image_input else estimate
        x = F.relu(self.conv_in(x))
        if self.recurrent is not None:
            x, state = self.recurrent(x, state or None)
        for i in range(RES_BLOCKS):
            x = (self.blocks[i % len(self.blocks)](x) + x).relu_()
        x = self.conv_out(x).to(image.dtype)
        if self.image_residual == "rainy":
            x = x + self.base_image(image)
        elif self.image_residual == "last":
            x = x + estimate
        return x, *state

    def published_keys(self, key: str) -> list[str]:
        """Return the authors' names of the parameter `key`, which keep every gate apart."""
        part, _, rest = key.partition(".")
        if part == "blocks":
            index, _, rest = rest.partition(".")
            return [f"res_conv{int(index) + 1}.{rest}"]
        if part == "recurrent" and self.recurrent is not None:
            part, _, rest = rest.partition(".")
            names = self.recurrent.gate_names if part == "gates" else ("g",)
            return [f"conv_{name}.0.{rest}" for name in names]
        return [{"conv_in": "conv0", "conv_out": "conv"}[part] + f".0.{rest}"]

    @classmethod
    def from_released(
        cls,
        state_dict: Mapping[str, Tensor],
        recurrent_iter: int = 6,
        recurrent_unit: Literal["lstm", "gru", "none"] = "lstm",
        shared_block: bool = False,
        image_input: bool = True,
        image_residual: ImageResidual = "rainy",
    ) -> PReNet:
        """Build one of the authors' variants from its weights.

        The weights of PReNet and PReNet_LSTM have the same keys and shapes. They do not reveal
        whether the degraded image is added, so `image_residual` (the registered name) decides.
        """
        released = Released("PReNet", state_dict)
        net = cls(
            recurrent_iter,
            released.shape("conv0.0.weight")[0],
            recurrent_unit,
            shared_block,
            image_input,
            image_residual,
        )
        strict_load(net, state_dict, net.published_keys)
        if recurrent_unit == "lstm" and image_input and not shared_block:
            read_as = "PReNet_LSTM" if image_residual == "none" else "PReNet"
            logger.warning(
                "these weights fit PReNet and PReNet_LSTM alike; read as %s because the network's "
                "type says so",
                read_as,
            )
        return net


ARCH_REGISTRY.variant("PReNet_LSTM", PReNet, image_residual="none")
ARCH_REGISTRY.variant("PReNet_GRU", PReNet, recurrent_unit="gru", image_residual="none")
ARCH_REGISTRY.variant("PReNet_x", PReNet, image_input=False, image_residual="none")
ARCH_REGISTRY.variant("PReNet_r", PReNet, shared_block=True)
ARCH_REGISTRY.variant("PRN", PReNet, recurrent_unit="none")
ARCH_REGISTRY.variant("PRN_r", PReNet, recurrent_unit="none", shared_block=True)
