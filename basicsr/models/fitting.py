"""Check that a data set fits a network."""

from __future__ import annotations

from collections.abc import Sequence

from basicsr.archs import RestorationNetwork
from basicsr.data import RestorationDataset
from basicsr.utils.errors import OptionsError


def require_patches(network: RestorationNetwork, sizes: Sequence[int]) -> None:
    """Raise OptionsError if the network does not take patches of `sizes` x `sizes` pixels."""
    for number, size in enumerate(sizes):
        if size % network.size_multiple:
            raise OptionsError(
                f"datasets.train.patches[{number}].size: {type(network).__name__} needs multiples "
                f"of {network.size_multiple}, not {size}; the next one is "
                f"{network.fitting_side(size)}"
            )


def require_fitting(network: RestorationNetwork, dataset: RestorationDataset, key: str) -> None:
    """Raise OptionsError if the channels of a data set are not those of the network.

    Args:
        network: the network that is trained or tested.
        dataset: the data set; its ground truth is compared if it has one.
        key: key path of the data set in the option file, such as "datasets.val".
    """
    lq, gt = dataset.lq_channels, dataset.gt_channels if dataset.has_gt else network.out_channels
    if (lq, gt) != (network.in_channels, network.out_channels):
        images = f"lq of {lq} and gt of {gt}" if dataset.has_gt else f"lq of {lq}"
        raise OptionsError(
            f"{key}: {type(dataset).__name__} has {images} channels, but {type(network).__name__} "
            f"maps {network.in_channels} to {network.out_channels}; change the data set, or "
            "network_g"
        )
