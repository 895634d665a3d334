"""Training losses by name, and their weighted sum over a network's stages."""

from .edge_loss import EdgeLoss
from .fft_loss import FFTLoss
from .mask_loss import MaskLoss
from .perceptual_loss import PerceptualLoss
from .pixel_losses import CharbonnierLoss, L1Loss, MSELoss
from .ssim_loss import SSIMLoss
from .terms import LossTerms, build_losses

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
