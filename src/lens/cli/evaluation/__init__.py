"""Commands of `lens eval` that run published benchmarks."""
