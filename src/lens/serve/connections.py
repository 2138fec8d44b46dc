"""Connections of the server: deadlines for what callers send and read, and a bound on how many there are.

uvicorn waits without end for the rest of a request and for callers that do not read, so a thousand half-sent
requests would take every file descriptor. Knows nothing of what requests mean.
"""

import asyncio
import logging
import resource
from typing import Any, Literal, cast

from lens.serve.api.middleware import AsgiApp, Receive, Scope, Send
from lens.serve.settings.server import RequestLimits

logger = logging.getLogger(__name__)
MAX_HEADER_BYTES = 2**16
NUM_OTHER_DESCRIPTORS = 384
"""Descriptors for all but connections: models, the database, images, and connections not yet counted."""
BACKLOG = 256
"""Connections that are accepted before any of them is counted."""
EMPTY_RESPONSE = b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
Receiving = Literal["headers", "body", None]


def uvicorn_config(app: Any, limits: RequestLimits, **values: Any) -> Any:
    """Return the configuration of uvicorn for an app, with bounded connections and without websockets."""
    import uvicorn

    return uvicorn.Config(
        app, http=bounded_protocol(limits), ws="none", backlog=BACKLOG, server_header=False, **values
    )


def connection_bound(num_wanted: int) -> int:
    """Return the number of connections that the limit of open files of this process leaves room for."""
    num_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if num_files == resource.RLIM_INFINITY or num_wanted + NUM_OTHER_DESCRIPTORS <= num_files:
        return num_wanted
    bound = max(16, num_files - NUM_OTHER_DESCRIPTORS)
    logger.warning(
        "limits.connections is %d, but the process may open %d files: at most %d connections are served. "
        "Raise the limit of open files, such as LimitNOFILE of a systemd unit.",
        num_wanted, num_files, bound,
    )  # fmt: skip
    return bound


class EndableStreams:
    """An ASGI app around another one, whose streams end at shutdown as if their callers had left.

    A page of the studio keeps streams open for as long as it is shown, so that a shutdown would wait for them
    in vain and then cancel them, with a traceback for each.
    """

    def __init__(self, app: AsgiApp):
        self._app, self._is_ended = app, asyncio.Event()

    def end(self) -> None:
        """End the streams; call it in the event loop."""
        self._is_ended.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            return await self._app(scope, receive, send)
        is_started = is_complete = False

        async def send_noted(message: Any) -> None:
            nonlocal is_started, is_complete
            is_started = True
            is_complete = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        async def receive_or_end() -> Any:
            receiving = asyncio.ensure_future(receive())
            ending = asyncio.ensure_future(self._is_ended.wait())
            try:
                await asyncio.wait({receiving, ending}, return_when=asyncio.FIRST_COMPLETED)
                if is_started and not receiving.done():
                    return {"type": "http.disconnect"}
                return await receiving
            finally:
                receiving.cancel()
                ending.cancel()

        await self._app(scope, receive_or_end, send_noted)
        if self._is_ended.is_set() and is_started and not is_complete:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class LenientTransport:
    """A transport that drops what is written after it was closed, where uvloop's raises an error.

    A caller may leave while a response is written, a moment before the protocol hears of it.
    """

    def __init__(self, transport: asyncio.Transport):
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)


def bounded_protocol(limits: RequestLimits) -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP protocol with deadlines, and with a bound on the number of connections.

    Headers have `header_s` seconds. A body, and a caller that reads a response, may fall behind
    `min_bytes_per_s` by `stall_s` seconds. When the bound is reached, the connection that has waited longest
    for a whole request makes room: those who send whole requests are always served.
    """
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    max_connections = connection_bound(limits.connections)

    class BoundedProtocol(HttpToolsProtocol):
        receiving: Receiving = None
        receive_timer: asyncio.TimerHandle | None = None
        send_timer: asyncio.TimerHandle | None = None
        waiting_since = 0.0
        num_header_bytes = num_body_bytes = num_raw_bytes = 0
        allowed_s = 0.0
        """Seconds that the body may take, apart from those that its size earns."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(cast(asyncio.Transport, LenientTransport(transport)))
            self._receive_headers()
            if len(self.connections) > max_connections:
                self._make_room()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_receiving()
            if self.send_timer is not None:
                self.send_timer.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self.receiving is None and self.is_idle:
                self._receive_headers()
            self.num_raw_bytes += len(data)
            super().data_received(data)
            is_over = self.receiving == "headers" and self.num_raw_bytes > MAX_HEADER_BYTES
            # Chunks of one byte take six; more than that are trailers, or extensions of chunks.
            if is_over or self.num_raw_bytes > 8 * self.num_body_bytes + 2 * MAX_HEADER_BYTES:
                self._refuse(b"431 Request Header Fields Too Large")

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self.receiving is None:  # a request that was sent before the last one was answered
                self._receive_headers()

        def on_headers_complete(self) -> None:
            super().on_headers_complete()
            self._receive("body", limits.stall_s)
            self.num_body_bytes, self.allowed_s = 0, limits.stall_s

        def on_body(self, body: bytes) -> None:
            super().on_body(body)
            self.num_body_bytes += len(body)

        def on_message_complete(self) -> None:
            super().on_message_complete()
            self._stop_receiving()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.receiving is None:
                self.waiting_since = self.loop.time()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._watch_reader()

        def resume_writing(self) -> None:
            super().resume_writing()
            if self.send_timer is not None:
                self.send_timer.cancel()

        @property
        def is_idle(self) -> bool:
            """Whether no request is being answered."""
            return self.cycle is None or self.cycle.response_complete

        def _receive_headers(self) -> None:
            self.num_raw_bytes = self.num_body_bytes = 0
            self._receive("headers", limits.header_s)

        def _receive(self, receiving: Receiving, seconds: float) -> None:
            self._stop_receiving()
            self.receiving, self.waiting_since = receiving, self.loop.time()
            self.receive_timer = self.loop.call_later(seconds, self._check_sender)

        def _stop_receiving(self) -> None:
            self.receiving = None
            if self.receive_timer is not None:
                self.receive_timer.cancel()

        def _check_sender(self) -> None:
            if self.receiving == "body":
                if self.flow.read_paused:  # the server is slow, not the caller
                    self.allowed_s += limits.stall_s
                due = self.waiting_since + self.allowed_s + self.num_body_bytes / limits.min_bytes_per_s
                if due > self.loop.time():
                    self.receive_timer = self.loop.call_at(due, self._check_sender)
                    return
            self._refuse(b"408 Request Timeout")

        def _watch_reader(self) -> None:
            num_left = self.transport.get_write_buffer_size()

            def check() -> None:
                num_read = num_left - self.transport.get_write_buffer_size()
                if num_read < limits.stall_s * limits.min_bytes_per_s:
                    self.transport.abort()
                else:
                    self._watch_reader()

            self.send_timer = self.loop.call_later(limits.stall_s, check)

        def _make_room(self) -> None:
            others = (cast(BoundedProtocol, one) for one in self.connections if one is not self)
            waiting = [one for one in others if one.receiving is not None or one.is_idle]
            if not waiting:
                self._refuse(b"503 Service Unavailable")
                return
            # Of those that send a body, one may be an honest caller with a slow line.
            oldest = min(waiting, key=lambda one: (one.receiving == "body", one.waiting_since))
            self.connections.discard(oldest)
            oldest.transport.abort()

        def _refuse(self, status: bytes) -> None:
            """Close the connection, with a status where nothing else was answered."""
            if self.is_idle and not self.transport.is_closing():
                self.transport.write(b"HTTP/1.1 " + status + EMPTY_RESPONSE)
            self._stop_receiving()
            self.transport.close()

    return BoundedProtocol
