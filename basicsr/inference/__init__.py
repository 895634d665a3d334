"""Restoring images, photographs and videos."""
