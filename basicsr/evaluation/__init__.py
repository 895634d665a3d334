"""Restoring and measuring data sets, result files, and published scores beside measured ones."""
