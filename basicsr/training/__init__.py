"""A training run: building, resuming, training, validating, saving."""
