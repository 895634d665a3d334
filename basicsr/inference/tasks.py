"""Weights of each restoration task: shipped ones, or where their authors publish them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from basicsr.utils.errors import CheckpointError

_RESTORMER = "https://github.com/swz30/Restormer/releases/tag/v1.0"


class TaskWeights(NamedTuple):
    """Weights of a task.

    Args:
        rgb: name of the shipped weights for RGB images, and for gray ones if there are no others.
        gray: name of the shipped weights for gray images.
        published: file of Restormer's authors for this task.
    """

    rgb: str | None = None
    gray: str | None = None
    published: str | None = None

    def names(self) -> list[str]:
        """Return the names of the shipped weights."""
        return [name for name in (self.rgb, self.gray) if name is not None]


TASKS = {
    "derain": TaskWeights("DTPNet-T_any-rain", published="deraining.pth"),
    "denoise": TaskWeights(
        "DTPNet-T_color_blind", "DTPNet-T_gray_blind", "gaussian_color_denoising_blind.pth"
    ),
    "real-denoise": TaskWeights(published="real_denoising.pth"),
    "motion": TaskWeights(published="motion_deblurring.pth"),
    "defocus": TaskWeights(published="single_image_defocus_deblurring.pth"),
}


def shipped_for(task: str, shipped: Iterable[str]) -> TaskWeights:
    """Return the weights of a task, as far as they are among the `shipped` ones.

    Raises CheckpointError, which says where such weights are published, if none are.
    """
    weights, names = TASKS[task], set(shipped)
    if weights.rgb not in names:
        raise CheckpointError(
            f"--task {task}: no weights are shipped; download {weights.published} of Restormer's "
            f"authors from {_RESTORMER}, and give --weights {weights.published} --type Restormer"
        )
    return weights._replace(gray=weights.gray if weights.gray in names else None)
