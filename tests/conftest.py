"""Tests run in two processes (see addopts in pyproject.toml), each with one thread unless told otherwise."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
