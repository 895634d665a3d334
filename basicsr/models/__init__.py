"""Networks in training: the optimization step, schedules, averaging, sharding, weights, cost."""

from basicsr.models import restoration_model, schedules

__all__ = ["restoration_model", "schedules"]
