"""Training losses by name, and their weighted sum over a network's stages.

Every `*_loss.py` and `*_losses.py` of this folder registers its classes for use in option files.
"""

from basicsr.losses.base import LossTerms, build_losses
from basicsr.losses.perceptual_loss import PerceptualLoss
from basicsr.losses.pixel_losses import (
    CharbonnierLoss,
    L1Loss,
    MaskLoss,
    MSELoss,
    PearsonLoss,
    PSNRLoss,
)
from basicsr.losses.structural_losses import EdgeLoss, FFTLoss, SSIMLoss
from basicsr.utils.registry import import_modules

__all__ = [
    "CharbonnierLoss",
    "EdgeLoss",
    "FFTLoss",
    "L1Loss",
    "LossTerms",
    "MSELoss",
    "MaskLoss",
    "PSNRLoss",
    "PearsonLoss",
    "PerceptualLoss",
    "SSIMLoss",
    "build_losses",
]

import_modules(__name__, __path__, "_loss", "_losses")
