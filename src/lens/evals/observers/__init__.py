"""Observers: what detectors, readers and classifiers see in an image."""
