"""Training losses by name, and their weighted sum over a network's stages."""

from basicsr.losses.base import LossTerms, build_losses
from basicsr.losses.perceptual_loss import PerceptualLoss
from basicsr.losses.pixel_losses import CharbonnierLoss, L1Loss, MaskLoss, MSELoss
from basicsr.losses.structural_losses import EdgeLoss, FFTLoss, SSIMLoss

__all__ = [
    "CharbonnierLoss",
    "EdgeLoss",
    "FFTLoss",
    "L1Loss",
    "LossTerms",
    "MSELoss",
    "MaskLoss",
    "PerceptualLoss",
    "SSIMLoss",
    "build_losses",
]
