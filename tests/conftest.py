"""Tests run in two processes (see addopts in pyproject.toml), each with one thread unless told otherwise.

A process takes a file at a time, in the order of their names: whole runs, builds and commands, which take
longest, come before the many small files of `unit`, so that neither process waits long for the other.
"""

import os
from contextlib import ExitStack, closing

import pytest
from local_server import Server

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def served():
    """Start a server of given answers; it ends with the test."""
    with ExitStack() as servers:
        yield lambda *answers: servers.enter_context(closing(Server(*answers)))
