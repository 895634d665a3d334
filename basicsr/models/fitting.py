"""Check that a data set fits a network."""

from __future__ import annotations

from basicsr.archs import RestorationNetwork
from basicsr.data import RestorationDataset
from basicsr.utils.errors import OptionsError


def require_fitting(network: RestorationNetwork, dataset: RestorationDataset, key: str) -> None:
    """Raise OptionsError, in one line, if the channels of a data set and a network differ.

    Args:
        network: Network that is trained or tested.
        dataset: Data set with or without ground truth.
        key: Key of the data set in the option file ("datasets.val"), for the message.
    """
    fits = dataset.lq_channels == network.in_channels
    images = f"{dataset.lq_channels}-channel inputs"
    if dataset.has_gt:
        fits = fits and dataset.gt_channels == network.out_channels
        images += f" and {dataset.gt_channels}-channel ground truth"
    if not fits:
        raise OptionsError(
            f"{key}: {type(dataset).__name__} gives {images}, but {type(network).__name__} "
            f"restores {network.out_channels}-channel images from {network.in_channels}-channel "
            "inputs; change the color or folders of the data set, or the channels of network_g"
        )
