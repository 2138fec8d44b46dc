"""Conversion of weights between published layouts, one tensor at a time."""
