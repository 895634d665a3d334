"""A loss on the features of a network that was trained to recognise things."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from basicsr.io.checkpoints import load_weights
from basicsr.losses.restoration_loss import RestorationLoss
from basicsr.utils.errors import CheckpointError, DataError, OptionsError
from basicsr.utils.registry import LOSS_REGISTRY, suggest

_CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}  # in each of the five blocks


@LOSS_REGISTRY.register
class PerceptualLoss(RestorationLoss):
    """Sum over `layers` of the mean absolute difference of VGG features (Johnson et al. 2016).

    Images are RGB or gray, normalised here as ImageNet's. The features are frozen. DID-MDN is
    trained with 1.8 times this loss, of VGG16.

    Args:
        layers: activations by their usual names, "relu2_2" being the second of the second block.
        weights: a file with torchvision's state dict of this network, for machines without a
            network connection; None lets torchvision fetch it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: Literal["vgg16", "vgg19"] = "vgg16",
        layers: tuple[str, ...] = ("relu2_2",),
        weights: str | None = None,
    ) -> None:
        super().__init__()
        known = _activations(network)
        if not layers:
            raise OptionsError(f"PerceptualLoss: name at least one layer of {network}")
        for layer in layers:
            if layer not in known:
                raise OptionsError(
                    f"PerceptualLoss: {network} has no layer '{layer}'{suggest(layer, known)}; "
                    f"known: {', '.join(known)}"
                )
        self.wanted = sorted(known[layer] for layer in layers)
        self.features = _features(network, weights)[: self.wanted[-1] + 1].eval()
        self.features.requires_grad_(False)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), False)

    def compare(self, restored: Tensor, target: Tensor) -> Tensor:
        """Raises DataError for images so small that pooling leaves nothing of them."""
        halvings = sum(isinstance(layer, nn.MaxPool2d) for layer in self.features)
        if min(target.shape[-2:]) < 2**halvings:
            height, width = target.shape[-2:]
            raise DataError(
                f"PerceptualLoss: its layers need patches of at least {2**halvings} x "
                f"{2**halvings} pixels, not {width} x {height}"
            )
        pairs = zip(self._activated(restored), self._activated(target), strict=True)
        return torch.stack([(ours - theirs).abs().mean() for ours, theirs in pairs]).sum()

    def _activated(self, image: Tensor) -> list[Tensor]:
        """The wanted activations; a gray image is normalised into three channels."""
        found = []
        features = (image - self.mean) / self.std
        for index, layer in enumerate(self.features):
            features = layer(features)
            if index in self.wanted:
                found.append(features)
        return found


def _activations(network: str) -> dict[str, int]:
    """Positions of the activations in torchvision's `features`, by name."""
    positions = {}
    index = 0
    for block, convolutions in enumerate(_CONVOLUTIONS[network], start=1):
        for number in range(1, convolutions + 1):
            positions[f"relu{block}_{number}"] = index + 1
            index += 2
        index += 1  # the pooling
    return positions


def _features(network: str, weights: str | None) -> nn.Sequential:
    """torchvision's convolutional part with its ImageNet weights."""
    import torchvision  # here, so that importing the library does not load it

    if weights is not None:
        with torch.device("meta"):  # nothing is drawn for the classifier, which is not used
            features = torchvision.models.get_model(network).features
        return _with_weights(features, network, weights)
    try:
        return torchvision.models.get_model(network, weights="IMAGENET1K_V1").features
    except OSError as error:  # among them what urllib raises
        raise OptionsError(
            f"PerceptualLoss: the weights of {network} could not be fetched ({error}); "
            "give a file with them as `weights`"
        ) from None


def _with_weights(features: nn.Sequential, network: str, file: str) -> nn.Sequential:
    state = load_weights(file).state_dict
    prefix = "features."
    state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    try:
        features.load_state_dict(state, assign=True)
    except RuntimeError:
        raise CheckpointError(f"{file}: not the weights of torchvision's {network}") from None
    return features
