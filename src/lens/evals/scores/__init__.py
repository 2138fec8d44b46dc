"""Scores of benchmarks: arithmetic on what models saw in images, one file a benchmark.

The rules are those of the official scorers, their oddities included.
"""
