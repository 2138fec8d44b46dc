"""A fair queue: callers take turns by the cost of their work (deficit round robin).

A caller receives credit at each of its turns and pays for its items with it. Over time all callers get equal
seconds, whether they request few large images or many small ones. Among the items of a caller, higher
priority goes first, then age. Knows nothing of images or threads.
Paper: Shreedhar and Varghese, Efficient Fair Queuing using Deficit Round Robin, 1995.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar

from lens.errors import QueueFullError
from lens.serve.retry_after import RetryPlaces

Item = TypeVar("Item")


@dataclass(order=True)
class _Entry(Generic[Item]):
    rank: tuple[int, int]
    cost_s: float = field(compare=False)
    item: Item = field(compare=False)


class FairQueue(Generic[Item]):
    """A queue with a limited number of items and seconds of work."""

    def __init__(self, max_items: int, max_cost_s: float):
        self.max_items, self.max_cost_s = max_items, max_cost_s
        self._sequence_numbers = count()
        self._entries: dict[str, list[_Entry[Item]]] = {}
        """A heap per caller, in the order of their turns."""
        self._credits: dict[str, float] = {}
        self._retry_places = RetryPlaces()

    def __len__(self) -> int:
        return sum(map(len, self._entries.values()))

    @property
    def total_cost_s(self) -> float:
        """Estimated seconds of all items."""
        return sum(entry.cost_s for entries in self._entries.values() for entry in entries)

    def push(
        self, item: Item, caller: str, cost_s: float, priority: int = 0, busy_s: float = 0.0
    ) -> None:
        """Add an item; `busy_s` are the seconds until an item will leave the queue.

        An empty queue accepts an item above the cost limit.
        Raises: QueueFullError, which says when to retry.
        """
        waiting, seconds = len(self), self.total_cost_s
        if waiting >= self.max_items:
            message = f"The queue is full: it holds {waiting} images, which is its limit."
            raise QueueFullError(message, self._retry_after_s(max(busy_s, seconds / waiting)))
        if waiting and seconds + cost_s > self.max_cost_s:
            limit = f"{self.max_cost_s:.0f} s"
            message = f"The queue is full: it holds {seconds:.0f} s of work, and its limit is {limit}."
            raise QueueFullError(message, self._retry_after_s(busy_s + seconds + cost_s - self.max_cost_s))
        self._entries.setdefault(caller, [])
        self._credits.setdefault(caller, 0.0)
        heapq.heappush(self._entries[caller], _Entry((-priority, next(self._sequence_numbers)), cost_s, item))

    def _retry_after_s(self, free_in_s: float) -> float:
        return self._retry_places.next_s(free_in_s, self.total_cost_s / len(self), self.total_cost_s)

    def peek(self) -> Item | None:
        """Return the next item; None if the queue is empty."""
        if not self._entries:
            return None
        return self._entries[self._next_caller()][0].item

    def pop(self) -> Item:
        """Remove and return the next item."""
        caller = self._next_caller()
        entry = heapq.heappop(self._entries[caller])
        self._credits[caller] -= entry.cost_s
        self._drop_idle(caller)
        return entry.item

    def remove(self, item: Item) -> bool:
        """Remove an item at any position; return whether it was there."""
        for caller, entries in self._entries.items():
            for index, entry in enumerate(entries):
                if entry.item is item:
                    entries[index] = entries[-1]
                    entries.pop()
                    heapq.heapify(entries)
                    self._drop_idle(caller)
                    return True
        return False

    def items(self) -> list[Item]:
        """Return all items in the order in which `pop` would return them."""
        return list(self._iterate_in_order())

    def _next_caller(self) -> str:
        """Return the next caller whose credit pays for its first item."""
        share = max(entries[0].cost_s for entries in self._entries.values())
        while True:
            caller = next(iter(self._entries))
            if self._credits[caller] >= self._entries[caller][0].cost_s:
                return caller
            self._credits[caller] += share
            self._entries[caller] = self._entries.pop(caller)  # to the end

    def _drop_idle(self, caller: str) -> None:
        # Only waiting callers have credit: an idle caller must not accumulate it.
        if not self._entries[caller]:
            del self._entries[caller], self._credits[caller]

    def _iterate_in_order(self) -> Iterator[Item]:
        simulation: FairQueue[Item] = FairQueue(self.max_items, self.max_cost_s)
        simulation._entries = {caller: list(entries) for caller, entries in self._entries.items()}
        simulation._credits = dict(self._credits)
        while simulation._entries:
            yield simulation.pop()
