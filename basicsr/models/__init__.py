"""Networks in training: optimization step, optimizers, schedules, averaging, sharding, cost."""
