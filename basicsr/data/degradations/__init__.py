"""Degradations of ground-truth images."""
