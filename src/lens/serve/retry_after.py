"""When to send a request again that there was no room for: each one gets a place of its own.

If all were told when the next place is free, all but one would come in vain.
"""

import threading
import time

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
