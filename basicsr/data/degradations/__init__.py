"""Degradations that are added to clean images."""
