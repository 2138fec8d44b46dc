"""The handle of an accepted request: its events in order, its result, and its cancellation.

Any number of threads may wait for events; the thread of the engine never waits for them. Knows nothing of how
images are generated.
"""

import threading
import time
from collections import deque
from collections.abc import Callable

from lens.errors import GenerationCancelledError
from lens.serve.engine.request import EngineEvent, Failed, Finished, GenerationRequest, Queued


class RequestHandle:
    """An accepted request; `EngineClient.submit` returns it."""

    def __init__(self, request: GenerationRequest, on_cancel: Callable[["RequestHandle"], None]):
        self.request = request
        self.submitted_at = time.monotonic()
        self.is_cancelled = False
        self.position: int | None = None
        """Queue position that was published last."""
        self._on_cancel = on_cancel
        self._events: deque[EngineEvent] = deque()
        self._final_event: Finished | Failed | None = None
        self._changed = threading.Condition()

    @property
    def is_finished(self) -> bool:
        """Whether the last event has been published."""
        return self._final_event is not None

    @property
    def deadline(self) -> float:
        """Moment, by `time.monotonic`, after which the image is of no use."""
        deadline_s = self.request.deadline_s
        return float("inf") if deadline_s is None else self.submitted_at + deadline_s

    def publish(self, event: EngineEvent) -> bool:
        """Append an event, unless the last one has been published; return whether it was appended."""
        with self._changed:
            if self._final_event is not None:
                return False
            # An older queue position that has not been read is obsolete.
            if isinstance(event, Queued) and self._events and isinstance(self._events[-1], Queued):
                self._events.pop()
            if isinstance(event, Finished | Failed):
                self._final_event = event
            else:
                self._events.append(event)
            self._changed.notify_all()
            return True

    def next_event(self, timeout_s: float | None = None) -> EngineEvent:
        """Wait for the next event and return it; after the last event, return that event again.

        Raises: TimeoutError if no event arrives in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._events or self._final_event, timeout_s):
                raise TimeoutError(f"No event arrived within {timeout_s} s.")
            if self._events:
                return self._events.popleft()
            assert self._final_event is not None
            return self._final_event

    def result(self, timeout_s: float | None = None) -> Finished:
        """Wait for the image.

        Raises: the error that stopped it; GenerationCancelledError if it was cancelled; TimeoutError.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._final_event, timeout_s):
                raise TimeoutError(f"The image was not finished within {timeout_s} s.")
            last = self._final_event
        if isinstance(last, Failed):
            raise last.error
        assert last is not None
        return last

    def cancel(self) -> None:
        """Stop before the next step; no effect on a finished request."""
        if not self.is_finished:
            self.is_cancelled = True
            self._on_cancel(self)

    def cancellation_event(self) -> Failed:
        """Return the last event of a cancelled request."""
        return Failed(GenerationCancelledError("The image was cancelled."))
