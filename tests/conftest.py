"""Tests run in two processes (see addopts in pyproject.toml), each with one thread unless told otherwise.

A process takes a file at a time, the longest first, so that no process waits long for another. Files that use
Ray go to one process, which starts it once; those that use a browser too, as two of them take it all.
"""

import os
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from local_server import Server

TESTS = Path(__file__).parent
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


LONGEST_FIRST = (
    "browser",
    "ray",
    "train/test_ranks",
    "train/test_nano_post_training",
    "train/test_distill",
    "train/test_rl",
    "train/test_runs",
    "unit/test_registration",
    "train",
    "serve",
    "data",
    "cli",
)
TOGETHER = {
    "serve/test_ray": "ray",
    "data/test_execution": "ray",
    "serve/test_studio_browser": "browser",
    "serve/test_studio_keyboard": "browser",
    "serve/test_studio_pages": "browser",
}


def group_of(item: pytest.Item) -> str:
    name = item.path.relative_to(TESTS).with_suffix("").as_posix()
    return TOGETHER.get(name, name)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group_of(item)))
    ranks = {name: rank for rank, name in enumerate(LONGEST_FIRST)}
    last = len(LONGEST_FIRST)

    def rank(item: pytest.Item) -> int:
        group = group_of(item)
        return ranks.get(group, ranks.get(group.partition("/")[0], last))

    items.sort(key=rank)


@pytest.fixture
def served():
    """Start a server of given answers; it ends with the test."""
    with ExitStack() as servers:
        yield lambda *answers: servers.enter_context(closing(Server(*answers)))
