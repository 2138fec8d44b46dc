"""Batches of the studio: images that are generated together, and go on when their page is closed.

The generation service submits, follows, moderates and encodes the images; a batch stores what comes back in
the gallery and lets any page wait for changes. Only cancelling ends it. Knows nothing of pages.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from uuid import uuid4

from PIL import Image

from lens.errors import GenerationCancelledError, QueueFullError
from lens.serve.api.generation import EncodedImage, EncodedPreview, GenerationEvent, GenerationService
from lens.serve.engine.generation_spec import GenerationSpec
from lens.serve.engine.request import Failed, GenerationRequest, Queued, StepProgress
from lens.serve.engine.request_handle import RequestHandle
from lens.serve.studio.gallery import Gallery, GalleryItem

MAX_IN_FLIGHT = 16
"""Images of one batch that the engine has at a time."""
MAX_RETRY_S = 2.0
PLACEHOLDER_SIDE_PX = 64
"""Longest side of the copy that a batch keeps of an image in the gallery."""
MAX_REMEMBERED_BATCHES = 64
"""Batches that a reloaded page can find again."""


@dataclass
class BatchItem:
    """The state of one image of a batch."""

    spec: GenerationSpec
    request: GenerationRequest
    event: Queued | StepProgress | Failed | None = None
    """The latest event; None before the engine has accepted the request and after the image is finished."""
    preview: Image.Image | None = None
    image: Image.Image | None = None
    """The finished image; a small copy if the gallery has it."""
    gallery_item: GalleryItem | None = None

    @property
    def is_finished(self) -> bool:
        return self.image is not None or isinstance(self.event, Failed)


class StudioBatch:
    """Images that are generated together; safe to share among threads."""

    def __init__(self, service: GenerationService, specs: Sequence[GenerationSpec], gallery: Gallery | None):
        self.batch_id = uuid4().hex
        self.items = [BatchItem(spec, request) for spec in specs for request in spec.requests()]
        self.is_cancelled = False
        self._service, self._gallery = service, gallery
        self._handles: list[RequestHandle] = []
        self._version = 0
        self._condition = threading.Condition()

    @property
    def is_finished(self) -> bool:
        return all(item.is_finished for item in self.items)

    @property
    def images(self) -> list[Image.Image | None]:
        return [item.image for item in self.items]

    @property
    def num_done(self) -> int:
        return sum(item.image is not None for item in self.items)

    @property
    def error(self) -> Exception | None:
        """The error of the first image that failed."""
        return next((item.event.error for item in self.items if isinstance(item.event, Failed)), None)

    @property
    def remaining_s(self) -> float | None:
        """Seconds until the slowest image in progress is finished; None without one."""
        times = [item.event.remaining_s for item in self.items if isinstance(item.event, StepProgress)]
        return max(times, default=None)

    def changes(self, max_interval_s: float = 5.0, min_interval_s: float = 0.1) -> Iterator[None]:
        """Yield at once, and after each change or `max_interval_s`, until the batch is finished."""
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
        """Cancel every image that is not finished."""
        with self._condition:
            self.is_cancelled = True
            handles = list(self._handles)
            self._condition.notify_all()
        for handle in handles:
            handle.cancel()

    def run(self) -> None:
        """Submit the images as the queue has room; return once all are submitted."""
        for item in self.items:
            try:
                handle = self._submit(item)
            except Exception as error:
                self._fail_remaining(error)
                return
            threading.Thread(target=self._follow, args=(item, handle), daemon=True).start()

    def _submit(self, item: BatchItem) -> RequestHandle:
        has_others_in_flight = False

        def next_request() -> GenerationRequest:
            nonlocal has_others_in_flight
            with self._condition:
                self._condition.wait_for(lambda: self.is_cancelled or self._num_in_flight() < MAX_IN_FLIGHT)
                has_others_in_flight = self._num_in_flight() > 0  # before submitting: the last may end then
            if self.is_cancelled:
                raise GenerationCancelledError("Cancelled.")
            return item.request

        def wait_for_room(error: QueueFullError) -> None:
            if not has_others_in_flight:
                raise error
            with self._condition:
                self._condition.wait(min(error.retry_after_s, MAX_RETRY_S))

        handle = self._service.submit_when_room(next_request, wait_for_room)
        with self._condition:
            self._handles.append(handle)
            item.event = Queued(0)
        if self.is_cancelled:
            handle.cancel()
        return handle

    def _follow(self, item: BatchItem, handle: RequestHandle) -> None:
        self._service.follow(handle, item.spec, lambda event: self._handle_event(item, event))
        with self._condition:
            self._handles.remove(handle)

    def _handle_event(self, item: BatchItem, event: GenerationEvent) -> None:
        image = gallery_item = None
        if isinstance(event, EncodedPreview | EncodedImage):
            try:
                image = _decode_image(event.content)
                if isinstance(event, EncodedImage) and self._gallery is not None:
                    gallery_item = self._gallery.save(event.content, event.metadata, item.spec.output_format)
                    image.thumbnail((PLACEHOLDER_SIDE_PX, PLACEHOLDER_SIDE_PX))
            except Exception as error:
                event = Failed(error)
        with self._condition:
            if isinstance(event, EncodedPreview):
                item.preview = image
            elif isinstance(event, EncodedImage):
                item.event, item.preview = None, None
                item.image, item.gallery_item = image, gallery_item
            else:
                item.event = event
                item.preview = None if isinstance(event, Failed) else item.preview
            self._notify()

    def _num_in_flight(self) -> int:
        return sum(item.event is not None and not item.is_finished for item in self.items)

    def _fail_remaining(self, error: Exception) -> None:
        with self._condition:
            for item in self.items:
                if item.event is None and not item.is_finished:
                    item.event = Failed(error)
            self._notify()

    def _notify(self) -> None:
        self._version += 1
        self._condition.notify_all()


class BatchManager:
    """The batches of all pages."""

    def __init__(self, service: GenerationService):
        self._service = service
        self._batches: OrderedDict[str, StudioBatch] = OrderedDict()
        self._lock = threading.Lock()

    def start(self, specs: Sequence[GenerationSpec], gallery: Gallery | None) -> StudioBatch:
        """Start a batch of requests; finished images go into the gallery, if there is one."""
        batch = StudioBatch(self._service, specs, gallery)
        with self._lock:
            self._batches[batch.batch_id] = batch
            while len(self._batches) > MAX_REMEMBERED_BATCHES:
                self._batches.popitem(last=False)
        threading.Thread(target=batch.run, daemon=True).start()
        return batch

    def forget(self, batch: StudioBatch) -> None:
        """Drop a batch and its images."""
        with self._lock:
            self._batches.pop(batch.batch_id, None)

    def find(self, batch_id: str | None) -> StudioBatch | None:
        """Return a batch by its id, or None if it is no longer remembered."""
        with self._lock, suppress(KeyError, TypeError):
            return self._batches[batch_id or ""]
        return None


def _decode_image(content: bytes) -> Image.Image:
    with Image.open(BytesIO(content)) as image:
        return image.convert("RGB")
