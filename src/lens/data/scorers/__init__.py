"""Scorers, one idea a file: images in, numbers out, each with a version."""
