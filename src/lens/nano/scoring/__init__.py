"""Exact scoring of images of the nano world."""
