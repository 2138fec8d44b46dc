"""Pictures on their way for a page: asked for together, watched by anybody, kept when they are done.

A batch goes on when the page that asked for it is closed or reloaded; only cancelling ends it. Knows nothing
of pages: they wait for changes and look.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from uuid import uuid4

from PIL import Image

from lens.errors import GenerationCancelledError, QueueFullError
from lens.serve.engine.request import (
    EngineClient,
    EngineEvent,
    Failed,
    Finished,
    GenerationRequest,
    Preview,
    Queued,
    RequestHandle,
    StepProgress,
)
from lens.serve.studio.gallery import Gallery, GalleryItem

MAX_IN_FLIGHT = 16
"""Pictures of one batch that are with the engine at a time."""
MAX_RETRY_S = 2.0
PLACEHOLDER_SIDE_PX = 64
"""Of what a batch remembers of a picture that is kept."""
MAX_REMEMBERED_BATCHES = 64
"""Batches that a reloaded page can find again."""


ImageCheck = Callable[[Image.Image, str], None]
"""(picture, caller); raises what the caller is told where a picture may not be shown."""


@dataclass
class BatchItem:
    """One picture of a batch, as far as it is."""

    request: GenerationRequest
    event: EngineEvent | None = None
    """The last one that is no preview; None before the engine took it on."""
    preview: Image.Image | None = None
    gallery_item: GalleryItem | None = None
    """Where the finished picture is, in a batch that keeps them."""

    @property
    def is_finished(self) -> bool:
        return isinstance(self.event, (Finished, Failed))


class StudioBatch:
    """Several pictures that were asked for together; safe to share among threads."""

    def __init__(
        self, requests: Sequence[GenerationRequest], gallery: Gallery | None, check: ImageCheck | None = None
    ):
        self.batch_id = uuid4().hex
        self.items = [BatchItem(request) for request in requests]
        self.is_cancelled = False
        self._gallery, self._check = gallery, check
        self._handles: list[RequestHandle] = []
        self._version = 0
        self._condition = threading.Condition()

    @property
    def is_finished(self) -> bool:
        return all(item.is_finished for item in self.items)

    @property
    def images(self) -> list[Image.Image | None]:
        return [item.event.image if isinstance(item.event, Finished) else None for item in self.items]

    @property
    def error(self) -> Exception | None:
        """What stopped the first picture that failed."""
        return next((item.event.error for item in self.items if isinstance(item.event, Failed)), None)

    def changes(self, max_interval_s: float = 5.0, min_interval_s: float = 0.1) -> Iterator[None]:
        """Yield at once, then whenever something changed, at most every `pause_s`, to the end."""
        seen_version = -1
        while True:
            with self._condition:
                if self._version == seen_version:
                    self._condition.wait(max_interval_s)
                seen_version, is_finished = self._version, self.is_finished
            yield
            if is_finished:
                return
            time.sleep(min_interval_s)

    def cancel(self) -> None:
        """Stop all that is not done."""
        with self._condition:
            self.is_cancelled = True
            handles = list(self._handles)
            self._condition.notify_all()
        for ticket in handles:
            ticket.cancel()

    def run(self, engine: EngineClient) -> None:
        """Hand the requests over as there is room for them; returns when the last was taken on."""
        for item in self.items:
            self._wait_for_capacity()
            error = self._submit(engine, item)
            if error is not None:
                self._fail_remaining(error)
                return

    def _submit(self, engine: EngineClient, item: BatchItem) -> Exception | None:
        while not self.is_cancelled:
            has_others_in_flight = self._num_in_flight() > 0  # asked first: the last may end meanwhile
            try:
                handle = engine.submit(item.request)
            except QueueFullError as error:
                if not has_others_in_flight:
                    return error
                with self._condition:
                    self._condition.wait(min(error.retry_after_s, MAX_RETRY_S))
                continue
            except Exception as error:
                return error
            with self._condition:
                self._handles.append(handle)
                item.event = item.event or Queued(0)
            if self.is_cancelled:
                handle.cancel()
            threading.Thread(target=self._follow, args=(item, handle), daemon=True).start()
            return None
        return GenerationCancelledError("Cancelled.")

    def _follow(self, item: BatchItem, handle: RequestHandle) -> None:
        while not item.is_finished:
            try:
                event = handle.next_event()
            except TimeoutError:
                continue
            except Exception as error:
                event = Failed(error)
            gallery_item = None
            try:
                if isinstance(event, Preview | Finished) and self._check is not None:
                    self._check(event.image, item.request.caller)
                if isinstance(event, Finished) and self._gallery is not None:
                    gallery_item = self._gallery.save(event.image, event.metadata)
                    event = replace(event, image=_thumbnail(event.image))
            except Exception as error:
                if isinstance(event, Preview):
                    continue  # the finished picture decides what is told
                event = Failed(error)
            with self._condition:
                if isinstance(event, Preview):
                    item.preview = event.image
                else:
                    item.event, item.gallery_item = event, gallery_item
                if item.is_finished:
                    item.preview = None
                    self._handles.remove(handle)
                self._notify()

    def _num_in_flight(self) -> int:
        return sum(item.event is not None and not item.is_finished for item in self.items)

    def _wait_for_capacity(self) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self.is_cancelled or self._num_in_flight() < MAX_IN_FLIGHT)

    def _fail_remaining(self, error: Exception) -> None:
        with self._condition:
            for item in self.items:
                if item.event is None:
                    item.event = Failed(error)
            self._notify()

    def _notify(self) -> None:
        self._version += 1
        self._condition.notify_all()


class BatchManager:
    """The batches of all pages."""

    def __init__(self, engine: EngineClient, check: ImageCheck | None = None):
        self.engine, self._check = engine, check
        self._batches: OrderedDict[str, StudioBatch] = OrderedDict()
        self._lock = threading.Lock()

    def start(self, requests: Sequence[GenerationRequest], gallery: Gallery | None) -> StudioBatch:
        """Begin a batch; finished pictures go into the gallery, if there is one."""
        batch = StudioBatch(requests, gallery, self._check)
        with self._lock:
            self._batches[batch.batch_id] = batch
            while len(self._batches) > MAX_REMEMBERED_BATCHES:
                self._batches.popitem(last=False)
        threading.Thread(target=batch.run, args=(self.engine,), daemon=True).start()
        return batch

    def forget(self, batch: StudioBatch) -> None:
        """Remember a batch, and its pictures, no longer."""
        with self._lock:
            self._batches.pop(batch.batch_id, None)

    def find(self, batch_id: str | None) -> StudioBatch | None:
        """Return a batch by its name, while it is remembered."""
        with self._lock, suppress(KeyError, TypeError):
            return self._batches[batch_id or ""]
        return None


def _thumbnail(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.thumbnail((PLACEHOLDER_SIDE_PX, PLACEHOLDER_SIDE_PX))
    return image


def seconds_left(batch: StudioBatch) -> float | None:
    """Return how long the slowest picture that is being drawn will take, if one is."""
    times = [tile.event.remaining_s for tile in batch.items if isinstance(tile.event, StepProgress)]
    return max(times, default=None)
