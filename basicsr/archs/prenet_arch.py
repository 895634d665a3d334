"""PReNet: *Progressive Image Deraining Networks: A Better and Simpler Baseline*, CVPR 2019.

The same small network is applied again and again, to the rainy image and to its own last result.
Layout of the published weights: github.com/csdwren/PReNet, `networks.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from basicsr.archs.conv_lstm import ConvGRUCell, ConvLSTMCell
from basicsr.archs.released import Released, strict_load
from basicsr.archs.rows import row_local, spent
from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import ARCH_REGISTRY

logger = logging.getLogger(__name__)

ImageResidual = Literal["rainy", "last", "none"]

RES_BLOCKS = 5
RECEPTIVE_FIELD = 2 * RES_BLOCKS + 4  # pixels around one that a pass looks at; a GRU has two 3x3


def _residual_branch(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.ReLU(inplace=True),
    )


@ARCH_REGISTRY.register
class PReNet(nn.Module):
    """`recurrent_iter` passes of conv -> recurrent unit -> five residual blocks -> conv.

    With `shared_block` the five residual blocks are one; without `image_input` a pass sees its
    last result alone; `image_residual` is the image that is added to what a pass puts out.
    """

    size_multiple = 1
    takes_rows = True

    def __init__(
        self,
        recurrent_iter: int = 6,
        channels: int = 32,
        recurrent_unit: Literal["lstm", "gru", "none"] = "lstm",
        shared_block: bool = False,
        image_input: bool = True,
        image_residual: ImageResidual = "rainy",
    ) -> None:
        super().__init__()
        if recurrent_iter < 1:
            raise OptionsError(f"recurrent_iter: {recurrent_iter} passes; at least 1 is needed")
        self.recurrent_iter = recurrent_iter
        self.image_input = image_input
        self.image_residual = image_residual
        self.conv_in = nn.Conv2d(6 if image_input else 3, channels, 3, padding=1)
        self.recurrent: ConvLSTMCell | ConvGRUCell | None = None
        if recurrent_unit != "none":
            self.recurrent = (ConvLSTMCell if recurrent_unit == "lstm" else ConvGRUCell)(channels)
        self.blocks = nn.ModuleList(
            _residual_branch(channels) for _ in range(1 if shared_block else RES_BLOCKS)
        )
        self.conv_out = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(
        self, rainy: Tensor, all_stages: bool = False, start: Tensor | None = None
    ) -> Tensor | list[Tensor]:
        """The result of the last pass, or of every pass. `start` is the first estimate: `rainy`."""
        x = rainy if start is None else start
        state: tuple[Tensor, ...] = ()
        stages = []
        for _ in range(self.recurrent_iter):
            x, *following = self._one_pass(rainy, x, *state)
            state = tuple(spent(each) for each in following)
            if all_stages:
                stages.append(x)
        return stages if all_stages else x

    @row_local(halo=RECEPTIVE_FIELD)
    def _one_pass(self, rainy: Tensor, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """The next result and, with a recurrent unit, its next state."""
        base = {"rainy": rainy, "last": x, "none": None}[self.image_residual]
        x = F.relu(self.conv_in(torch.cat([rainy, x], dim=1) if self.image_input else x))
        if self.recurrent is not None:
            x, state = self.recurrent(x, state or None)
        for i in range(RES_BLOCKS):
            x = (self.blocks[i % len(self.blocks)](x) + x).relu_()
        x = self.conv_out(x).to(rainy.dtype)
        return (x if base is None else x + base), *state

    def published_keys(self, key: str) -> list[str]:
        """What the authors' state dict calls the parameter `key`: one tensor for every gate."""
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
        """Weights of one of the authors' variants.

        The weights of PReNet and PReNet_LSTM have the same keys and shapes: nothing in them tells
        whether the rainy image is to be added, so `image_residual` (the registered name) decides.
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
