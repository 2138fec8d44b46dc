"""A request that the engine took on, as its caller sees it: what happened, in order, and the way to stop it.

Knows nothing of how pictures are drawn. Callers wait in any number of threads; the engine never waits.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import count

from lens.errors import GenerationCancelledError
from lens.serve.engine.request import EngineEvent, Failed, Finished, GenerationRequest, Queued

_handle_numbers = count()


class EngineRequestHandle:
    """What `Engine.submit` returns."""

    def __init__(self, request: GenerationRequest, on_cancel: Callable[["EngineRequestHandle"], None]):
        self.request = request
        self.number = next(_handle_numbers)
        self.submitted_at = time.monotonic()
        self.is_cancelled = False
        self.position: int | None = None
        """Place in the queue that was told last."""
        self._on_cancel = on_cancel
        self._events: deque[EngineEvent] = deque()
        self._final_event: Finished | Failed | None = None
        self._changed = threading.Condition()

    @property
    def is_finished(self) -> bool:
        return self._final_event is not None

    @property
    def deadline(self) -> float:
        """Moment after which the picture is of no use."""
        deadline_s = self.request.deadline_s
        return float("inf") if deadline_s is None else self.submitted_at + deadline_s

    def publish(self, event: EngineEvent) -> bool:
        """Add what happened; nothing after the last event. Return whether it was added."""
        with self._changed:
            if self._final_event is not None:
                return False
            # Nobody needs to know where in the queue a picture was a moment ago.
            if isinstance(event, Queued) and self._events and isinstance(self._events[-1], Queued):
                self._events.pop()
            if isinstance(event, Finished | Failed):
                self._final_event = event
            else:
                self._events.append(event)
            self._changed.notify_all()
            return True

    def next_event(self, timeout_s: float | None = None) -> EngineEvent:
        """Return what happened next; waits for it. After the last event it is returned again.

        Raises: TimeoutError where nothing happened in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._events or self._final_event, timeout_s):
                raise TimeoutError(f"Nothing happened in {timeout_s} s.")
            if self._events:
                return self._events.popleft()
            assert self._final_event is not None
            return self._final_event

    def result(self, timeout_s: float | None = None) -> Finished:
        """Wait for the picture.

        Raises: what stopped it; Cancelled where it was cancelled; TimeoutError.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._final_event, timeout_s):
                raise TimeoutError(f"There is no picture after {timeout_s} s.")
            last = self._final_event
        if isinstance(last, Failed):
            raise last.error
        assert last is not None
        return last

    def cancel(self) -> None:
        """Stop at the next step, or before the first. Does nothing to what is over."""
        if not self.is_finished:
            self.is_cancelled = True
            self._on_cancel(self)

    def cancellation_event(self) -> Failed:
        """Return the last event of a picture that nobody wants any more."""
        return Failed(GenerationCancelledError("The picture was cancelled."))
