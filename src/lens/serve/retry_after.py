"""When to send a request again that there was no room for: each one gets a place of its own.

If all were told when the next place is free, all but one would come in vain.
"""

import threading
import time
from collections.abc import Hashable

MIN_RETRY_AFTER_S = 1.0
"""Minimum delay before a retry."""


class RetryPlaces:
    """The places that rejected requests were told to come back for; safe in any thread."""

    def __init__(self):
        self._lock = threading.Lock()
        self._given_until = 0.0
        """When the place after the last one that was given is free."""

    def next_s(self, free_in_s: float, pace_s: float, all_done_s: float) -> float:
        """Return the seconds until the next place that nobody was told of.

        One is free in `free_in_s`, then one every `pace_s`. Nobody is told more than the sum of `free_in_s`
        and `all_done_s`, as then all that waits now is done.
        """
        with self._lock:
            now = time.monotonic()
            wait_s = min(free_in_s + all_done_s, max(free_in_s, self._given_until - now))
            self._given_until = now + wait_s + pace_s
        return max(MIN_RETRY_AFTER_S, wait_s)


class HeldRequests:
    """Requests that hold something until they are answered, and when the first of them lets it go.

    That is told by how long the last ones took. For one thread.
    """

    LATEST_SHARE = 0.3
    """Weight of the latest request in the mean of their seconds."""

    def __init__(self, unknown_s: float):
        """`unknown_s` stands for the mean before any request was answered."""
        self._mean_s, self._began_at = unknown_s, dict[Hashable, float]()
        self._places = RetryPlaces()

    def begin(self, request: Hashable) -> None:
        """Note that a request begins to hold something."""
        self._began_at.setdefault(request, time.monotonic())

    def end(self, request: Hashable, counts: bool) -> None:
        """Note that a request holds nothing more; one that was refused does not count for the mean."""
        began_at = self._began_at.pop(request, None)
        if counts and began_at is not None:
            self._mean_s += self.LATEST_SHARE * (time.monotonic() - began_at - self._mean_s)

    def retry_after_s(self) -> float:
        """Return the seconds until the next place that nobody was told of; for at least one held request."""
        free_in_s = max(0.0, min(self._began_at.values()) + self._mean_s - time.monotonic())
        return self._places.next_s(free_in_s, self._mean_s / len(self._began_at), self._mean_s)
