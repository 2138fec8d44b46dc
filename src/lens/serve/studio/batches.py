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

from lens.errors import Cancelled, QueueFullError
from lens.serve.engine.request import (
    Done,
    Drawer,
    Drawing,
    DrawRequest,
    Event,
    Failed,
    Preview,
    Ticket,
    Waiting,
)
from lens.serve.studio.gallery import Gallery, Kept

MAX_UNDER_WAY = 16
"""Pictures of one batch that are with the engine at a time."""
LONGEST_RETRY_S = 2.0
SMALL_SIDE_PX = 64
"""Of what a batch remembers of a picture that is kept."""
REMEMBERED = 64
"""Batches that a reloaded page can find again."""


Check = Callable[[Image.Image, str], None]
"""(picture, caller); raises what the caller is told where a picture may not be shown."""


@dataclass
class Tile:
    """One picture of a batch, as far as it is."""

    request: DrawRequest
    event: Event | None = None
    """The last one that is no preview; None before the engine took it on."""
    preview: Image.Image | None = None
    kept: Kept | None = None
    """Where the finished picture is, in a batch that keeps them."""

    @property
    def is_over(self) -> bool:
        return isinstance(self.event, (Done, Failed))


class Batch:
    """Several pictures that were asked for together; safe to share among threads."""

    def __init__(
        self, requests: Sequence[DrawRequest], gallery: Gallery | None, check: Check | None = None
    ):
        self.name = uuid4().hex
        self.tiles = [Tile(request) for request in requests]
        self.is_cancelled = False
        self._gallery, self._check = gallery, check
        self._tickets: list[Ticket] = []
        self._version = 0
        self._changed = threading.Condition()

    @property
    def is_over(self) -> bool:
        return all(tile.is_over for tile in self.tiles)

    @property
    def images(self) -> list[Image.Image | None]:
        return [tile.event.image if isinstance(tile.event, Done) else None for tile in self.tiles]

    @property
    def error(self) -> Exception | None:
        """What stopped the first picture that failed."""
        return next((tile.event.error for tile in self.tiles if isinstance(tile.event, Failed)), None)

    def changes(self, at_least_every_s: float = 5.0, pause_s: float = 0.1) -> Iterator[None]:
        """Yield at once, then whenever something changed, at most every `pause_s`, to the end."""
        seen = -1
        while True:
            with self._changed:
                if self._version == seen:
                    self._changed.wait(at_least_every_s)
                seen, is_over = self._version, self.is_over
            yield
            if is_over:
                return
            time.sleep(pause_s)

    def cancel(self) -> None:
        """Stop all that is not done."""
        with self._changed:
            self.is_cancelled = True
            tickets = list(self._tickets)
            self._changed.notify_all()
        for ticket in tickets:
            ticket.cancel()

    def run(self, drawer: Drawer) -> None:
        """Hand the requests over as there is room for them; returns when the last was taken on."""
        for tile in self.tiles:
            self._wait_for_room()
            error = self._submit(drawer, tile)
            if error is not None:
                self._fail_rest(error)
                return

    def _submit(self, drawer: Drawer, tile: Tile) -> Exception | None:
        while not self.is_cancelled:
            has_others = self._num_under_way() > 0  # asked first: the last may end meanwhile
            try:
                ticket = drawer.submit(tile.request)
            except QueueFullError as error:
                if not has_others:
                    return error
                with self._changed:
                    self._changed.wait(min(error.retry_after_s, LONGEST_RETRY_S))
                continue
            except Exception as error:
                return error
            with self._changed:
                self._tickets.append(ticket)
                tile.event = tile.event or Waiting(0)
            if self.is_cancelled:
                ticket.cancel()
            threading.Thread(target=self._follow, args=(tile, ticket), daemon=True).start()
            return None
        return Cancelled("Cancelled.")

    def _follow(self, tile: Tile, ticket: Ticket) -> None:
        while not tile.is_over:
            try:
                event = ticket.next_event()
            except TimeoutError:
                continue
            except Exception as error:
                event = Failed(error)
            kept = None
            try:
                if isinstance(event, Preview | Done) and self._check is not None:
                    self._check(event.image, tile.request.caller)
                if isinstance(event, Done) and self._gallery is not None:
                    kept = self._gallery.keep(event.image, event.settings)
                    event = replace(event, image=_thumbnail(event.image))
            except Exception as error:
                if isinstance(event, Preview):
                    continue  # the finished picture decides what is told
                event = Failed(error)
            with self._changed:
                if isinstance(event, Preview):
                    tile.preview = event.image
                else:
                    tile.event, tile.kept = event, kept
                if tile.is_over:
                    tile.preview = None
                    self._tickets.remove(ticket)
                self._tell()

    def _num_under_way(self) -> int:
        return sum(tile.event is not None and not tile.is_over for tile in self.tiles)

    def _wait_for_room(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.is_cancelled or self._num_under_way() < MAX_UNDER_WAY)

    def _fail_rest(self, error: Exception) -> None:
        with self._changed:
            for tile in self.tiles:
                if tile.event is None:
                    tile.event = Failed(error)
            self._tell()

    def _tell(self) -> None:
        self._version += 1
        self._changed.notify_all()


class Drawings:
    """The batches of all pages."""

    def __init__(self, drawer: Drawer, check: Check | None = None):
        self.drawer, self._check = drawer, check
        self._batches: OrderedDict[str, Batch] = OrderedDict()
        self._lock = threading.Lock()

    def start(self, requests: Sequence[DrawRequest], gallery: Gallery | None) -> Batch:
        """Begin a batch; finished pictures go into the gallery, if there is one."""
        batch = Batch(requests, gallery, self._check)
        with self._lock:
            self._batches[batch.name] = batch
            while len(self._batches) > REMEMBERED:
                self._batches.popitem(last=False)
        threading.Thread(target=batch.run, args=(self.drawer,), daemon=True).start()
        return batch

    def forget(self, batch: Batch) -> None:
        """Remember a batch, and its pictures, no longer."""
        with self._lock:
            self._batches.pop(batch.name, None)

    def find(self, name: str | None) -> Batch | None:
        """Return a batch by its name, while it is remembered."""
        with self._lock, suppress(KeyError, TypeError):
            return self._batches[name or ""]
        return None


def _thumbnail(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.thumbnail((SMALL_SIDE_PX, SMALL_SIDE_PX))
    return image


def seconds_left(batch: Batch) -> float | None:
    """Return how long the slowest picture that is being drawn will take, if one is."""
    times = [tile.event.seconds_left for tile in batch.tiles if isinstance(tile.event, Drawing)]
    return max(times, default=None)
