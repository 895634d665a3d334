"""Losses that compare images pixel by pixel."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from basicsr.losses.base import RestorationLoss
from basicsr.utils.ranges import Epsilon, Fraction
from basicsr.utils.registry import LOSS_REGISTRY


@LOSS_REGISTRY.register
class L1Loss(RestorationLoss):
    """Mean absolute difference (Restormer, DID-MDN)."""

    def compare(self, restored: Tensor, target: Tensor) -> Tensor:
        return F.l1_loss(restored, target)


@LOSS_REGISTRY.register
class MSELoss(RestorationLoss):
    """Mean squared difference (DTPNet's coarse image)."""

    def compare(self, restored: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(restored, target)


@LOSS_REGISTRY.register
class CharbonnierLoss(RestorationLoss):
    """Mean of sqrt(difference^2 + eps^2), an L1 loss that is smooth at zero (MPRNet).

    Its value for equal images is `eps`.

    Args:
        eps: half-width of the smooth part.
        clamp: clamp the restored image to [0, 1] first, as MPRNet is trained for denoising; values
            beyond that range then have no gradient.
    """

    def __init__(self, eps: Epsilon = 1e-3, clamp: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.clamp = clamp

    def compare(self, restored: Tensor, target: Tensor) -> Tensor:
        if self.clamp:
            restored = restored.clamp(0, 1)
        return charbonnier(restored - target, self.eps)


@LOSS_REGISTRY.register
class PSNRLoss(RestorationLoss):
    """Mean of log10(MSE + eps) over images: -PSNR / 10 (HINet and NAFNet, up to a factor).

    All images count alike, as in the mean PSNR of a data set, whether they are almost restored or
    not. Its value for equal images is log10(eps).
    """

    def __init__(self, eps: Epsilon = 1e-6) -> None:
        super().__init__()
        self.eps = eps

    def compare(self, restored: Tensor, target: Tensor) -> Tensor:
        mse = (restored - target).square().flatten(1).mean(1)
        return (mse + self.eps).log10().mean()


@LOSS_REGISTRY.register
class PearsonLoss(RestorationLoss):
    """(1 - r) / 2, averaged over images, with Pearson's r of all values of the two (Histoformer).

    0 for images that differ in brightness and contrast only, 1 for negatives. An image of one level
    has no correlation; its value is 1/2.
    """

    def compare(self, restored: Tensor, target: Tensor) -> Tensor:
        ours, theirs = (image.flatten(1) for image in (restored, target))
        ours, theirs = (image - image.mean(1, keepdim=True) for image in (ours, theirs))
        squares = ours.square().sum(1) * theirs.square().sum(1)
        # the root of zero has no gradient
        norms = squares.clamp(min=torch.finfo(squares.dtype).tiny).sqrt()
        correlation = (ours * theirs).sum(1) / (norms + 1e-6)
        return (1 - correlation).mean() / 2


@LOSS_REGISTRY.register
class MaskLoss(nn.Module):
    """Binary cross-entropy of a predicted distortion mask (SPAIR).

    The true mask is |lq - gt| > threshold in any channel. The description that SPAIR is rebuilt
    from gives neither the threshold nor the loss; both are this project's choice.
    """

    def __init__(self, threshold: Fraction = 0.05) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, masked: Tensor, target: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            masked: SPAIR's first stage, N x (C + 1) x H x W: the degraded image, and the mask as
                its last channel, in [0, 1].
            target: the ground truth, N x C x H x W in [0, 1].
        """
        degraded, mask = masked[:, :-1], masked[:, -1:]
        if degraded.shape != target.shape:  # they would be broadcast
            raise ValueError(
                f"MaskLoss needs {target.shape[1]} channels and a mask, as SPAIR's stage 0 has, "
                f"for a target of {tuple(target.shape)}, not {tuple(masked.shape)}"
            )
        dtype = torch.promote_types(mask.dtype, torch.float32)
        with torch.autocast(masked.device.type, enabled=False):
            difference = (degraded.to(dtype) - target.to(dtype)).abs().amax(1, keepdim=True)
            return F.binary_cross_entropy(mask.to(dtype), (difference > self.threshold).to(dtype))


def charbonnier(difference: Tensor, eps: float) -> Tensor:
    """Return the mean of sqrt(difference^2 + eps^2)."""
    return (difference.square() + eps**2).sqrt().mean()
