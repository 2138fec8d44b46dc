"""Engines as replicas on Ray Serve."""
