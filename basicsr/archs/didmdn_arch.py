"""DID-MDN: density-aware deraining by a multi-stream dense network (Zhang and Patel, CVPR 2018).

A residual net estimates the rain, a classifier reads the rain density off the estimate, and a
de-rainer removes the rain, with the density as its second input. Layout and numbers are those of
the authors' code, github.com/hezhangsprinter/DID-MDN, whose images are in [-1, 1]; the networks
here take images in [0, 1] and scale them.

Layers without influence on any output are left out: 365,236 of the 372,839 published parameters of
the de-rainer remain, and 103,609 of the 182,947 of the residual net. `from_released` requires the
others in the authors' files and drops them.

The authors train and test one image at a time, with BatchNorm on batch statistics also in tests.
Their labels are 0 heavy, 1 medium, 2 light in training, and the class plus one in tests. Their test
script stretches every result to its own minimum and maximum, which is not done here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from basicsr.archs.base import RestorationNetwork
from basicsr.archs.conv3x3 import Conv3x3
from basicsr.archs.didmdn_released import dead_in_derainer, dead_in_residual_net, dead_weights
from basicsr.archs.released import Released, strict_load
from basicsr.utils.errors import CheckpointError
from basicsr.utils.registry import ARCH_REGISTRY

Statistics = Literal["image", "running"]
DensityLabel = Annotated[int, Field(ge=0, le=4)]
Net = TypeVar("Net", bound=nn.Module)
CLASSIFIER_SIZE = 512


class ImageNorm(nn.InstanceNorm2d):
    """BatchNorm as for batches of one: every image is normalised by its own statistics.

    In eval mode, `batch_norm` "image" does the same, and "running" uses the averages of training.
    In both cases the result for an image does not depend on the others of its batch.
    """

    def __init__(self, channels: int, batch_norm: Statistics) -> None:
        super().__init__(channels, affine=True, track_running_stats=True)
        self.batch_norm = batch_norm

    def forward(self, x: Tensor) -> Tensor:
        if self.training or self.batch_norm == "running":
            return super().forward(x)
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


class DenseBlock(nn.Module):
    """Two convolutions (1x1, then `kernel_size`) after norm and ReLU, appended to the input."""

    def __init__(
        self, in_channels: int, growth: int, kernel_size: int, batch_norm: Statistics
    ) -> None:
        super().__init__()
        self.bn1 = ImageNorm(in_channels, batch_norm)
        self.conv1 = nn.Conv2d(in_channels, 4 * growth, 1, bias=False)
        self.bn2 = ImageNorm(4 * growth, batch_norm)
        self.conv2 = nn.Conv2d(4 * growth, growth, kernel_size, padding="same", bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.relu(self.bn1(x)))
        return torch.cat([x, self.conv2(F.relu(self.bn2(hidden)))], 1)


class Transition(nn.Module):
    """1x1 convolution after norm and ReLU, then resizing by 0.5 (average), 1 or 2 (nearest)."""

    def __init__(
        self, in_channels: int, out_channels: int, scale: float, batch_norm: Statistics
    ) -> None:
        super().__init__()
        self.scale = scale
        self.bn1 = ImageNorm(in_channels, batch_norm)
        self.conv1 = nn.ConvTranspose2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(F.relu(self.bn1(x)))
        if self.scale < 1:
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2.0, mode="nearest") if self.scale > 1 else x


class Stream(nn.Module):
    """Six dense blocks with transitions; blocks 5 and 6 also see transitions 2 and 1.

    `growths` are the channels that each block appends, `widths` the output channels of each
    transition and `scales` their resizing. With `dense_skips`, earlier features are concatenated
    (de-rainer) instead of added (residual net).
    """

    def __init__(
        self,
        kernel_size: int,
        growths: Sequence[int],
        widths: Sequence[int],
        scales: Sequence[float],
        dense_skips: bool,
        batch_norm: Statistics,
    ) -> None:
        super().__init__()
        self.dense_skips = dense_skips
        inputs = [3, *widths[:5]]
        if dense_skips:
            inputs[4] += widths[1]
            inputs[5] += widths[0]
        for i in range(6):
            block = DenseBlock(inputs[i], growths[i], kernel_size, batch_norm)
            transition = Transition(inputs[i] + growths[i], widths[i], scales[i], batch_norm)
            self.add_module(f"dense_block{i + 1}", block)
            self.add_module(f"trans_block{i + 1}", transition)

    def step(self, number: int, x: Tensor) -> Tensor:
        x = self.get_submodule(f"dense_block{number}")(x)
        return self.get_submodule(f"trans_block{number}")(x)

    def join(self, x: Tensor, earlier: Tensor) -> Tensor:
        return torch.cat([x, earlier], 1) if self.dense_skips else x + earlier

    def trace(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs of the first and the last transition."""
        first = self.step(1, x)
        second = self.step(2, first)
        fourth = self.step(4, self.step(3, second))
        fifth = self.step(5, self.join(fourth, second))
        return first, self.step(6, self.join(fifth, first))

    def forward(self, x: Tensor) -> Tensor:
        return self.trace(x)[1]


class DerainerStream(Stream):
    """Stream that appends a side output of its first features, five times, and the image."""

    def __init__(
        self,
        kernel_size: int,
        growths: Sequence[int],
        widths: Sequence[int],
        scales: Sequence[float],
        batch_norm: Statistics,
    ) -> None:
        super().__init__(kernel_size, growths, widths, scales, True, batch_norm)
        self.conv11 = Conv3x3(widths[0], 1)

    def forward(self, x: Tensor) -> Tensor:
        first, last = self.trace(x)
        side = F.interpolate(F.leaky_relu(self.conv11(first), 0.2), last.shape[2:], mode="nearest")
        # In the authors' code, all five side outputs come from the first side convolution.
        return torch.cat([last, *[side] * 5, x], 1)


class RainEstimator(RestorationNetwork):
    """Estimation of the rain from three streams, planes of the density label and a pyramid.

    Subclasses set the streams, `dense0` to `dense2`.
    """

    size_multiple = 32
    dense0: Stream
    dense1: Stream
    dense2: Stream

    def __init__(self, label_planes: int, seen_channels: int, width: int, pyramid: int) -> None:
        super().__init__()
        self.label_planes = label_planes
        self.conv_refin = Conv3x3(seen_channels, width)
        self.conv1010 = nn.Conv2d(width, pyramid, 1)
        self.conv1020 = nn.Conv2d(width, pyramid, 1)
        self.conv1030 = nn.Conv2d(width, pyramid, 1)
        self.conv1040 = nn.Conv2d(width, pyramid, 1)
        self.refine3 = Conv3x3(width + 4 * pyramid, 3)

    def rain(self, x: Tensor, label: Tensor | float) -> Tensor:
        """Return the rain in [-1, 1] of images in [-1, 1].

        `label` is one density for all images, or one for each.
        """
        self.check_input(x)
        count, _, height, width = x.shape
        # not `torch.as_tensor`, which becomes a constant where the network is traced
        labels = label if isinstance(label, Tensor) else x.new_full((1,), label)
        labels = labels.to(x).reshape(-1)
        try:
            planes = labels.view(-1, 1, 1, 1).expand(count, self.label_planes, height, width)
        except RuntimeError:
            raise ValueError(
                f"{len(labels)} density labels were given for {count} images"
            ) from None
        seen = torch.cat([self.dense0(x), x, self.dense1(x), self.dense2(x), planes], 1)
        features = F.leaky_relu(self.conv_refin(seen), 0.2)
        convs = (self.conv1010, self.conv1020, self.conv1030, self.conv1040)
        pyramid = []
        for size, conv in zip((32, 16, 8, 4), convs, strict=True):
            level = F.leaky_relu(conv(F.avg_pool2d(features, size)), 0.2)
            pyramid.append(F.interpolate(level, (height, width), mode="nearest"))
        return torch.tanh(self.refine3(torch.cat([*pyramid, features], 1)))


@ARCH_REGISTRY.register
class DIDMDNDerainer(RainEstimator):
    """De-rainer of DID-MDN alone; `label` is the density of images for which none is given."""

    def __init__(self, label: DensityLabel = 0, batch_norm: Statistics = "image") -> None:
        super().__init__(label_planes=8, seen_channels=47, width=47, pyramid=2)
        self.label = label
        sizes = (5, 8, 4, 4, 8, 8), (4, 12, 12, 12, 4, 4)
        self.dense0 = DerainerStream(3, *sizes, (0.5, 1, 1, 1, 1, 2), batch_norm)
        sizes = (13, 16, 16, 16, 8, 8), (8, 16, 16, 16, 8, 4)
        self.dense1 = DerainerStream(5, *sizes, (0.5, 0.5, 1, 1, 2, 2), batch_norm)
        self.dense2 = DerainerStream(7, *sizes, (0.5, 0.5, 0.5, 2, 2, 2), batch_norm)
        self.refineclean1 = nn.Conv2d(3, 8, 7, padding=3)
        self.refineclean2 = Conv3x3(8, 3)

    def derain(self, x: Tensor, label: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return the rain and the restored image of images `x`, all in [-1, 1]."""
        rain = self.rain(x, label)
        refined = F.leaky_relu(self.refineclean1(x - rain), 0.2)
        return rain, torch.tanh(self.refineclean2(refined))

    def forward(
        self, x: Tensor, all_stages: bool = False, label: Tensor | float | None = None
    ) -> Tensor | list[Tensor]:
        restored = self.derain(2 * x - 1, self.label if label is None else label)[1]
        restored = (restored + 1) / 2
        return [restored] if all_stages else restored

    def published_state_dict(self) -> dict[str, Tensor]:
        """Return the weights as published, with those that have no influence."""
        live = super().published_state_dict()
        return {**live, **dead_weights(dead_in_derainer(), live)}

    @classmethod
    def from_released(
        cls, state_dict: Mapping[str, Tensor], label: int = 0, batch_norm: Statistics = "image"
    ) -> DIDMDNDerainer:
        """Build the network from the authors' de-rainer file."""
        return _read(cls(label, batch_norm), "DID-MDN de-rainer", state_dict, dead_in_derainer())


@ARCH_REGISTRY.register
class DIDMDNResidual(RainEstimator):
    """Residual net of DID-MDN alone, which subtracts its estimate of the rain."""

    def __init__(self, batch_norm: Statistics = "image") -> None:
        super().__init__(label_planes=4, seen_channels=13, width=20, pyramid=1)
        sizes = (5, 8, 4, 4, 8, 8), (4, 12, 12, 12, 4, 2)
        self.dense0 = Stream(3, *sizes, (1,) * 6, False, batch_norm)
        sizes = (13, 16, 16, 16, 8, 8), (8, 16, 16, 16, 8, 2)
        self.dense1 = Stream(3, *sizes, (0.5, 1, 1, 1, 1, 2), False, batch_norm)
        self.dense2 = Stream(3, *sizes, (0.5, 0.5, 1, 1, 2, 2), False, batch_norm)

    def forward(
        self, x: Tensor, all_stages: bool = False, label: Tensor | float = 0
    ) -> Tensor | list[Tensor]:
        restored = x - self.rain(2 * x - 1, label) / 2
        return [restored] if all_stages else restored

    def published_state_dict(self) -> dict[str, Tensor]:
        """Return the weights as published, with those that have no influence."""
        live = super().published_state_dict()
        return {**live, **dead_weights(dead_in_residual_net(), live)}

    @classmethod
    def from_released(
        cls, state_dict: Mapping[str, Tensor], batch_norm: Statistics = "image"
    ) -> DIDMDNResidual:
        """Build the network from the authors' file of the residual net."""
        return _read(cls(batch_norm), "DID-MDN residual net", state_dict, dead_in_residual_net())


class DensityClassifier(nn.Module):
    """Classifier of the rain density: N x 4 logits.

    It takes images in [-1, 1] after subtraction of the rain, and resizes them to 512 x 512.
    """

    def __init__(self, batch_norm: Statistics) -> None:
        super().__init__()
        self.feature = nn.Sequential(
            Conv3x3(3, 64), ImageNorm(64, batch_norm), nn.ReLU(inplace=True)
        )
        self.conv16 = Conv3x3(64, 24)
        self.dense_classifier = nn.Linear(24 * (CLASSIFIER_SIZE // 7) ** 2, 512)
        self.dense_classifier1 = nn.Linear(512, 4)

    def forward(self, x: Tensor) -> Tensor:
        size = (CLASSIFIER_SIZE, CLASSIFIER_SIZE)
        x = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
        averages = F.avg_pool2d(F.relu(self.conv16(self.feature(x))), 7)
        return self.dense_classifier1(F.relu(self.dense_classifier(averages.flatten(1))))


@ARCH_REGISTRY.register
class DIDMDN(RestorationNetwork):
    """Complete DID-MDN, which estimates the density label of each image.

    Only the de-rainer learns: no gradient passes through the choice of a label, and the authors
    train the residual net and the classifier beforehand. Here DIDMDNResidual is a network of its
    own, and `density_logits` is the input of a classification loss.
    """

    size_multiple = 32

    def __init__(self, batch_norm: Statistics = "image") -> None:
        super().__init__()
        self.derainer = DIDMDNDerainer(batch_norm=batch_norm)
        self.residual_net = DIDMDNResidual(batch_norm).requires_grad_(False)
        self.classifier = DensityClassifier(batch_norm).requires_grad_(False)

    def train(self, mode: bool = True) -> DIDMDN:
        """Set the mode of the de-rainer; the parts that do not learn stay in eval mode."""
        super().train(mode)
        self.residual_net.eval()
        self.classifier.eval()
        return self

    def density_logits(self, x: Tensor) -> Tensor:
        """Return N x 4 logits for images in [0, 1]; the label is their argmax plus 1."""
        return self.classifier(2 * self.residual_net(x) - 1)

    def forward(
        self, x: Tensor, all_stages: bool = False, label: Tensor | float | None = None
    ) -> Tensor | list[Tensor]:
        """Return the restored images, for the density `label` (one, or one per image) if given."""
        if label is None:
            with torch.no_grad():
                label = self.density_logits(x).argmax(1) + 1
        return self.derainer(x, all_stages, label)

    @classmethod
    def from_released(
        cls,
        state_dict: Mapping[str, Tensor],
        residual: Mapping[str, Tensor] | None = None,
        classifier: Mapping[str, Tensor] | None = None,
        batch_norm: Statistics = "image",
    ) -> DIDMDN:
        """Build the network from the authors' files of de-rainer, residual net and classifier.

        Raises CheckpointError if a file is missing or holds another part.
        """
        if residual is None or classifier is None:
            raise CheckpointError(
                "DIDMDN: the published weights are three files; combine them with "
                "scripts/convert_weights.py (in Python: pass the other two as `residual` and "
                "`classifier`), or read the de-rainer alone as DIDMDNDerainer"
            )
        net = cls(batch_norm)
        _read(net.derainer, "DID-MDN de-rainer", state_dict, dead_in_derainer())
        _read(net.residual_net, "DID-MDN residual net", residual, dead_in_residual_net())
        _read(net.classifier, "DID-MDN density classifier", classifier, set())
        return net


def _read(net: Net, system: str, state_dict: Mapping[str, Tensor], dead: set[str]) -> Net:
    """Load `state_dict` except for the `dead` keys, which must be present too.

    Files from before PyTorch 0.4.1, such as the authors', have no counters of batches.
    """
    counters = {
        key: torch.zeros((), dtype=torch.long)
        for key in (*net.state_dict(), *dead)
        if key.endswith("num_batches_tracked")
    }
    found = {**counters, **state_dict}
    released = Released(system, state_dict)
    for key in sorted(dead - found.keys()):
        raise released.error(f"'{key}' is missing")
    strict_load(net, {key: value for key, value in found.items() if key not in dead})
    return net
