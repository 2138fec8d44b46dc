"""Server-sent events: the events of several images as one asynchronous stream.

Each image has a thread that waits for the engine, encodes and marks; the event loop only forwards. When the
reader disconnects, the unfinished images are cancelled.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from lens.serve.api.errors import error_response
from lens.serve.api.generation import EncodedImage, GenerationEvent, GenerationService
from lens.serve.engine.generation_spec import GenerationSpec
from lens.serve.engine.request import Failed
from lens.serve.engine.request_handle import RequestHandle

DISCONNECT_POLL_S = 0.5
"""Interval of checks whether the caller has disconnected."""
KEEP_ALIVE_INTERVAL_S = 15.0


class ImageEvent(NamedTuple):
    """An event of one of several images."""

    image_index: int
    event: GenerationEvent


async def stream_events(
    handles: Sequence[RequestHandle],
    service: GenerationService,
    spec: GenerationSpec,
    is_disconnected: Callable[[], Awaitable[bool]],
) -> AsyncIterator[ImageEvent | None]:
    """Yield the events of images until all are finished; None at intervals without events.

    Stops early if the caller disconnects. When it stops, it cancels the unfinished images.
    """
    loop, queue = asyncio.get_running_loop(), asyncio.Queue()

    def follow(number: int, handle: RequestHandle) -> None:
        def publish(event: GenerationEvent) -> None:
            try:
                loop.call_soon_threadsafe(queue.put_nowait, ImageEvent(number, event))
            except RuntimeError:  # the loop has ended
                handle.cancel()

        service.follow(handle, spec, publish)

    for number, handle in enumerate(handles):
        threading.Thread(target=follow, args=(number, handle), daemon=True).start()
    num_open, yielded_at, polled_at = len(handles), loop.time(), loop.time()
    try:
        while num_open:
            item = None
            with suppress(TimeoutError):
                item = await asyncio.wait_for(queue.get(), DISCONNECT_POLL_S)
            now = loop.time()
            if now - polled_at >= DISCONNECT_POLL_S:
                polled_at = now
                if await is_disconnected():
                    return
            if item is not None or now - yielded_at >= KEEP_ALIVE_INTERVAL_S:
                yielded_at = now
                num_open -= item is not None and isinstance(item.event, EncodedImage | Failed)
                yield item
    finally:
        for handle in handles:
            handle.cancel()


async def wait_for_all(
    handles: Sequence[RequestHandle],
    service: GenerationService,
    spec: GenerationSpec,
    is_disconnected: Callable[[], Awaitable[bool]],
) -> list[EncodedImage] | None:
    """Return all images; None if the caller disconnects. Raises: the error of the first that fails."""
    images: dict[int, EncodedImage] = {}
    stream = stream_events(handles, service, spec, is_disconnected)
    try:
        async for item in stream:
            if item is not None and isinstance(item.event, Failed):
                raise item.event.error
            if item is not None and isinstance(item.event, EncodedImage):
                images[item.image_index] = item.event
    finally:
        await stream.aclose()  # type: ignore[attr-defined]
    return [images[number] for number in sorted(images)] if len(images) == len(handles) else None


def sse_event(name: str, data: dict[str, Any]) -> bytes:
    """Return a server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def sse_error(error: BaseException) -> bytes:
    """Return an error as a server-sent event; OpenAI's clients raise it."""
    return sse_event("error", error_response(error).body)


KEEP_ALIVE = b": keep-alive\n\n"
