"""The contract of restoration networks: what training, inference and evaluation rely on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor, nn

from basicsr.archs.strips import row_local
from basicsr.utils.errors import CheckpointError, OptionsError
from basicsr.utils.registry import ARCH_REGISTRY

# Ranges of constructor arguments. Option files, JSON schemas and constructor calls all check them.
Channels = Annotated[int, Field(ge=1, le=4096)]
Count = Annotated[int, Field(ge=1, le=1000)]  # of blocks, heads or passes
CountOrNone = Annotated[int, Field(ge=0, le=1000)]  # the same where there may be none
FourCounts = tuple[Count, Count, Count, Count]  # one for each level
ExpansionFactor = Annotated[float, Field(gt=0, le=64)]


class RestorationNetwork(nn.Module):
    """Base class of every registered network.

    In eval mode the result for an image must not depend on other calls. Subclasses override the
    attributes below as class attributes, or in their constructor where options decide.

    Attributes:
        in_channels: channels of the input images.
        out_channels: channels of the restored images.
        size_multiple: height and width of the input must be multiples of this.
        supports_strips: whether `forward` accepts a `strips.StripMap` in place of a tensor.
        independent_images: whether, in eval mode, each image of a batch is restored without
            influence of the others.
        reconstruction: whether the network was rebuilt from a description, without published code.
        published_wrapper: key under which the authors' files hold the state dict; None if it is the
            whole content.
    """

    size_multiple: int = 1
    supports_strips: bool = False
    independent_images: bool = True
    reconstruction: ClassVar[bool] = False
    published_wrapper: ClassVar[str | None] = None

    def __init__(self, in_channels: int = 3, out_channels: int = 3) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels

    def forward(self, x: Tensor, all_stages: bool = False) -> Tensor | list[Tensor]:
        """Restore N x in_channels x H x W images with values in [0, 1].

        Returns:
            The restored images, N x out_channels x H x W; with `all_stages`, the list of all
            supervised outputs, the restored images last.
        """
        raise NotImplementedError

    def fitting_side(self, side: int) -> int:
        """Return the smallest multiple of `size_multiple` that is at least `side`."""
        return -(-side // self.size_multiple) * self.size_multiple

    def check_input(self, x: Tensor) -> None:
        """Raise ValueError unless the network accepts images of the shape of `x`."""
        channels, height, width = x.shape[-3:]
        if channels != self.in_channels:
            raise ValueError(
                f"{type(self).__name__}: {self.in_channels}-channel images are needed, "
                f"not {channels}-channel ones"
            )
        multiple = self.size_multiple
        if height % multiple or width % multiple:
            raise ValueError(
                f"{type(self).__name__}: height and width must be multiples of {multiple}, "
                f"not {height}x{width}"
            )

    def require_base_image(self) -> None:
        """Raise OptionsError unless `base_image` is defined for these numbers of channels."""
        if self.in_channels not in (self.out_channels, 2 * self.out_channels):
            raise OptionsError(
                f"in_channels: outputs of {self.out_channels} channels cannot be added to inputs "
                f"of {self.in_channels}; make them equal, or give two views of {self.out_channels} "
                f"channels each (in_channels: {2 * self.out_channels})"
            )

    def base_image(self, x: Tensor) -> Tensor:
        """Return the images that residual outputs are added to.

        They are `x` itself or, with twice as many input as output channels (a left and a right
        view), the mean of the two views.
        """
        return x if self.in_channels == self.out_channels else _mean_of_views(x)

    def published_keys(self, key: str) -> Sequence[str]:
        """Return the names that the authors' state dict has for the parameter `key`.

        With several names, the parameter is their concatenation along the first axis.
        """
        return (key,)

    def published_state_dict(self) -> dict[str, Tensor]:
        """Return the weights in the layout that the authors published; see `published_keys`."""
        published: dict[str, Tensor] = {}
        for key, value in self.state_dict().items():
            names = self.published_keys(key)
            parts = value.chunk(len(names)) if len(names) > 1 else [value]
            published.update(zip(names, (part.clone() for part in parts), strict=True))
        return published

    @classmethod
    def from_released(cls, state_dict: Mapping[str, Tensor]) -> RestorationNetwork:
        """Build the network from published weights, with its sizes read off the shapes.

        Further arguments of an override are hints: options that the weights do not reveal.

        Raises:
            CheckpointError: The weights are not those of this network, or none were published.
        """
        raise CheckpointError(f"{cls.__name__}: there are no published weights to read")


@row_local(halo=0)
def _mean_of_views(x: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=1)
    return (left + right) / 2


ARCH_REGISTRY.base = RestorationNetwork
