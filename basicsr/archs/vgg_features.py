"""First layers of torchvision's VGG16, trained on ImageNet and frozen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from basicsr.archs.conv3x3 import Conv3x3
from basicsr.io.checkpoints import load_weights
from basicsr.utils.errors import CheckpointError, OptionsError

WIDTHS = (64, 128, 256)
_CONVS_PER_LEVEL = (2, 2, 3)


class VGG16Features(nn.Module):
    """Layers `features[:4]`, `[4:9]` and `[9:16]` of torchvision's VGG16, in sequence.

    They take RGB images in [0, 1], which are normalised with the mean and deviation of ImageNet,
    and return 64, 128 and 256 channels at full, half and quarter resolution.

    Args:
        weights_file: torchvision's weights, or only their `features.*`; downloaded if None.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, weights_file: str | None) -> None:
        super().__init__()
        layers = list(_layers())
        self.scales = nn.ModuleList(
            nn.Sequential(*layers[a:b]) for a, b in ((0, 4), (4, 9), (9, 16))
        )
        pretrained = load_weights(weights_file).state_dict if weights_file else _downloaded()
        self._load(layers, pretrained, weights_file or "torchvision's VGG16")
        self.requires_grad_(False)
        for name, of_rgb in (
            ("mean", (0.485, 0.456, 0.406)),
            ("deviation", (0.229, 0.224, 0.225)),
        ):
            self.register_buffer(name, torch.tensor(of_rgb).view(3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> list[Tensor]:
        x = (image - self.mean) / self.deviation
        features = []
        for scale in self.scales:
            x = scale(x)
            features.append(x)
        return features

    @staticmethod
    def _load(layers: list[nn.Module], weights: Mapping[str, Tensor], source: str) -> None:
        for index, layer in enumerate(layers):
            for name, parameter in layer.named_parameters():
                key = f"features.{index}.{name}"
                if key not in weights or weights[key].shape != parameter.shape:
                    raise CheckpointError(
                        f"{source}: no VGG16 weights; '{key}' of shape {tuple(parameter.shape)} "
                        "is not in it"
                    )
                with torch.no_grad():
                    parameter.copy_(weights[key])


def _layers() -> Iterator[nn.Module]:
    channels = 3
    for scale, width in enumerate(WIDTHS):
        if scale:
            yield nn.MaxPool2d(2)
        for _ in range(_CONVS_PER_LEVEL[scale]):
            yield Conv3x3(channels, width)
            yield nn.ReLU()
            channels = width


def _downloaded() -> Mapping[str, Tensor]:
    from torchvision.models import VGG16_Weights

    weights = VGG16_Weights.IMAGENET1K_V1
    try:
        return weights.get_state_dict(check_hash=True)
    except OSError as error:  # such as those of urllib
        reason = getattr(error, "reason", error)
        raise OptionsError(
            f"VGG16's weights could not be downloaded ({reason}); fetch {weights.url} on another "
            "machine and set vgg16_weights to that file"
        ) from None
