"""Scorers, one idea a file: a picture in, numbers out, each with a version."""
