"""What surrounds a network: optimisation, validation, checkpoints, restoring whole images."""

from basicsr.models import restoration_model, schedules

__all__ = ["restoration_model", "schedules"]
