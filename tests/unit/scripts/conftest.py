"""Benchmarks as modules, for their tests."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """Return a module of benchmarks/, which import one another by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module
