"""Training losses by name, and their weighted sum over a network's stages."""

from basicsr.losses.edge_loss import EdgeLoss
from basicsr.losses.fft_loss import FFTLoss
from basicsr.losses.mask_loss import MaskLoss
from basicsr.losses.perceptual_loss import PerceptualLoss
from basicsr.losses.pixel_losses import CharbonnierLoss, L1Loss, MSELoss
from basicsr.losses.ssim_loss import SSIMLoss
from basicsr.losses.terms import LossTerms, build_losses

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
