"""Pictures followed by a request: events of threads, as an asynchronous stream that ends with its reader.

Each picture has a thread that waits for the engine, encodes and marks; the loop that answers requests only
passes on. Whoever stops reading cancels what is not made yet.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from lens.serve.api.errors import answer_of
from lens.serve.api.generation import Made, Maker, Told
from lens.serve.api.schemas import Wanted
from lens.serve.engine.request import Failed, Ticket

LOOK_EVERY_S = 0.5
"""How soon a caller that went away is noticed."""
SAY_SOMETHING_EVERY_S = 15.0


class OfPicture(NamedTuple):
    """What happened to one of several pictures."""

    number: int
    told: Told


async def followed(
    tickets: Sequence[Ticket],
    maker: Maker,
    wanted: Wanted,
    is_gone: Callable[[], Awaitable[bool]],
) -> AsyncIterator[OfPicture | None]:
    """Yield what happens to pictures until all are made; None now and then where nothing does.

    Ends early where the caller is gone; cancels all that is left whenever it ends.
    """
    loop, queue = asyncio.get_running_loop(), asyncio.Queue()

    def follow(number: int, ticket: Ticket) -> None:
        def tell(told: Told) -> None:
            try:
                loop.call_soon_threadsafe(queue.put_nowait, OfPicture(number, told))
            except RuntimeError:  # the loop has ended, so nobody listens
                ticket.cancel()

        maker.follow(ticket, wanted, tell)

    for number, ticket in enumerate(tickets):
        threading.Thread(target=follow, args=(number, ticket), daemon=True).start()
    num_open, told_at, looked_at = len(tickets), loop.time(), loop.time()
    try:
        while num_open:
            event = None
            with suppress(TimeoutError):
                event = await asyncio.wait_for(queue.get(), LOOK_EVERY_S)
            now = loop.time()
            if now - looked_at >= LOOK_EVERY_S:
                looked_at = now
                if await is_gone():
                    return
            if event is not None or now - told_at >= SAY_SOMETHING_EVERY_S:
                told_at = now
                num_open -= event is not None and isinstance(event.told, Made | Failed)
                yield event
    finally:
        for ticket in tickets:
            ticket.cancel()


async def all_made(
    tickets: Sequence[Ticket],
    maker: Maker,
    wanted: Wanted,
    is_gone: Callable[[], Awaitable[bool]],
) -> list[Made] | None:
    """Return all pictures; None where the caller is gone. Raises: what stopped the first that failed."""
    made: dict[int, Made] = {}
    stream = followed(tickets, maker, wanted, is_gone)
    try:
        async for event in stream:
            if event is not None and isinstance(event.told, Failed):
                raise event.told.error
            if event is not None and isinstance(event.told, Made):
                made[event.number] = event.told
    finally:
        await stream.aclose()  # type: ignore[attr-defined]
    return [made[number] for number in sorted(made)] if len(made) == len(tickets) else None


def server_sent(name: str, data: dict[str, Any]) -> bytes:
    """Return a server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def error_sent(error: BaseException) -> bytes:
    """Return an error as a server-sent event; clients of OpenAI's raise it."""
    return server_sent("error", answer_of(error).body)


KEEP_ALIVE = b": keep-alive\n\n"
