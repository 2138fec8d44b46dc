"""A progress bar on stderr, as stdout carries the result of a command."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich import progress
from rich.console import Console

Item = TypeVar("Item")


def track(items: Iterable[Item], description: str, disable: bool = False) -> Iterator[Item]:
    """Yield items and show how many are done, on stderr."""
    yield from progress.track(items, description, console=Console(stderr=True), disable=disable)
