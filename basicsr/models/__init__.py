"""Networks in training: optimization step, optimizers, schedules, averaging, sharding, cost."""

from basicsr.models import optimizers, restoration_model, schedules

__all__ = ["optimizers", "restoration_model", "schedules"]
