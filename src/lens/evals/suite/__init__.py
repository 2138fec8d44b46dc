"""Runs of benchmarks in four steps with files between them: prompts, images, observations, scores."""
