"""Perceptual loss: difference of the features of a classification network."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from basicsr.io.checkpoints import load_weights
from basicsr.losses.base import RestorationLoss
from basicsr.utils.errors import CheckpointError, DataError, OptionsError
from basicsr.utils.ranges import Factor
from basicsr.utils.registry import LOSS_REGISTRY, suggest

_CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}  # in each of the five blocks


@LOSS_REGISTRY.register
class PerceptualLoss(RestorationLoss):
    """Weighted sum over `layers` of the mean absolute difference of VGG features.

    Images are RGB or gray in [0, 1]; ImageNet's normalisation is applied here. The features are
    frozen (Johnson et al. 2016). DID-MDN is trained with 1.8 times this loss, of VGG16; BasicSR
    compares convolutions before their activation.

    Args:
        network: the classification network.
        layers: layers by their usual names: "conv2_2" is the second convolution of the second
            block, "relu2_2" its activation.
        layer_weights: weight of each layer; 1 by default.
        weights: a file with torchvision's state dict of this network, for machines without an
            internet connection; None lets torchvision download it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: Literal["vgg16", "vgg19"] = "vgg16",
        layers: tuple[str, ...] = ("relu2_2",),
        layer_weights: tuple[Factor, ...] | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        known = _layer_positions(network)
        if not layers:
            raise OptionsError(f"PerceptualLoss: name at least one layer of {network}")
        for layer in layers:
            if layer not in known:
                raise OptionsError(
                    f"PerceptualLoss: {network} has no layer '{layer}'{suggest(layer, known)}; "
                    f"known: {', '.join(known)}"
                )
        factors = layer_weights or (1.0,) * len(layers)
        if len(factors) != len(layers):
            raise OptionsError(
                f"PerceptualLoss: {len(factors)} layer_weights for {len(layers)} layers; give one "
                "each"
            )
        positions = [known[layer] for layer in layers]
        self.weights = dict(zip(positions, factors, strict=True))
        self.features = _features(network, weights)[: max(positions) + 1].eval()
        for module in self.features:
            if isinstance(module, nn.ReLU):
                module.inplace = False  # the convolution before it may be compared
        self.features.requires_grad_(False)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), False)

    def compare(self, restored: Tensor, target: Tensor) -> Tensor:
        """Return the loss.

        Raises:
            ValueError: if the images are neither RGB nor gray.
            DataError: if the images are too small for the pooling layers.
        """
        if target.shape[1] not in (1, 3):
            raise ValueError(
                f"PerceptualLoss is defined for RGB and gray images, not for {target.shape[1]} "
                "channels; use another loss"
            )
        halvings = sum(isinstance(layer, nn.MaxPool2d) for layer in self.features)
        if min(target.shape[-2:]) < 2**halvings:
            height, width = target.shape[-2:]
            raise DataError(
                f"PerceptualLoss: its layers need patches of at least {2**halvings} x "
                f"{2**halvings} pixels, not {width} x {height}"
            )
        ours, theirs = self._activations(restored), self._activations(target)
        return torch.stack(
            [
                weight * (ours[position] - theirs[position]).abs().mean()
                for position, weight in self.weights.items()
            ]
        ).sum()

    def _activations(self, image: Tensor) -> dict[int, Tensor]:
        """Return the outputs of `layers` by their positions."""
        found = {}
        features = (image - self.mean) / self.std  # repeats a gray image in three channels
        for index, layer in enumerate(self.features):
            features = layer(features)
            if index in self.weights:
                found[index] = features
        return found


def _layer_positions(network: str) -> dict[str, int]:
    """Return the positions of the layers in torchvision's `features`, by name."""
    positions = {}
    index = 0
    for block, convolutions in enumerate(_CONVOLUTIONS[network], start=1):
        for number in range(1, convolutions + 1):
            positions[f"conv{block}_{number}"] = index
            positions[f"relu{block}_{number}"] = index + 1
            index += 2
        index += 1  # the pooling layer
    return positions


def _features(network: str, weights: str | None) -> nn.Sequential:
    """Return torchvision's convolutional layers with their ImageNet weights."""
    import torchvision  # imported late: it is slow to load, and few runs need it

    if weights is not None:
        with torch.device("meta"):  # do not initialise the classifier, which is not used
            features = torchvision.models.get_model(network).features
        return _with_weights(features, network, weights)
    try:
        return torchvision.models.get_model(network, weights="IMAGENET1K_V1").features
    except OSError as error:  # also raised by urllib
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
