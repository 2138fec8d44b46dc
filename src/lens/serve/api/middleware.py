"""What stands before every request: its size, its key, how often its caller asks.

Plain ASGI, so that streams pass through untouched. Knows nothing of pictures.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from lens.serve.api.errors import Answer, ApiError, answer_of
from lens.serve.settings.server import ServerSettings
from lens.serve.storage.api_keys import Key, Rates
from lens.serve.storage.server_state import Store

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

GUARDED = ("/v1/", "/metrics", "/docs", "/redoc", "/openapi.json")
BY_ADDRESS_ALONE = "/v1/pictures/"
"""Pictures' addresses are random and known to their owner: that is their key."""
OPEN_OWNER = "local"
KEYS_KNOWN_S = 5.0
"""How long the server believes what it read of keys."""


class Caller(NamedTuple):
    """Who asks."""

    owner: str
    """Whose jobs these are."""
    key: Key | None = None

    def fair_name(self, user: str | None) -> str:
        """Return whom the engine shares itself among: keys, or without any the users that requests name."""
        return self.owner if self.key is not None else f"user:{user}" if user else self.owner


class TooLargeError(ApiError):
    """A body past the limit."""

    def __init__(self, limit: int):
        super().__init__(413, f"The request is larger than {limit} bytes.", "request_too_large")


class KeyCheck:
    """Finds the caller of a request by its key."""

    def __init__(self, store: Store, settings: ServerSettings):
        self._keys, self._settings, self._rates = store.keys, settings, Rates()
        self._known: dict[str, tuple[float, Key | None]] = {}
        self._has_key = (float("-inf"), False)
        public = urlsplit(settings.public_url or "").hostname
        self._own_names = {"localhost", "127.0.0.1", "::1", settings.host, public}

    async def caller_of(self, authorization: str | None) -> Caller:
        """Return who asks.

        Raises: ApiError (401) without a key that is known, where one is needed; QueueFullError.
        """
        now = time.monotonic()
        if not await self.is_needed():
            return Caller(OPEN_OWNER)
        kind, _, text = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not text.strip():
            raise ApiError(401, "Send a key: Authorization: Bearer KEY.", "missing_api_key")
        key = await self._key(text.strip(), now)
        if key is None:
            raise ApiError(401, "This key is not known here.", "invalid_api_key")
        self._rates.count(key.id, key.requests_per_minute or self._settings.limits.requests_per_minute)
        return Caller(key.id, key)

    async def is_needed(self) -> bool:
        """Return whether callers have to show a key."""
        now = time.monotonic()
        if now - self._has_key[0] > KEYS_KNOWN_S:
            self._has_key = now, bool(await asyncio.to_thread(self._keys.all))
        return self._settings.needs_key(self._has_key[1])

    async def check_host(self, host: str) -> None:
        """Raise ApiError where a server that asks for no key is called by another machine's name.

        Web pages can have their own name lead to this machine (DNS rebinding), and would be let in.
        """
        name = urlsplit(f"//{host}").hostname
        if name not in self._own_names and not await self.is_needed():
            message = f"This server does not go by the name {name!r}. Its operator can set public_url."
            raise ApiError(421, message, "misdirected_request")

    async def _key(self, text: str, now: float) -> Key | None:
        then, key = self._known.get(text, (-KEYS_KNOWN_S, None))
        if now - then > KEYS_KNOWN_S:
            key = await asyncio.to_thread(self._keys.of, text)
            if key is not None:  # wrong keys are not worth remembering
                self._known[text] = now, key
            else:
                self._known.pop(text, None)
        return key


class Guard:
    """Middleware: lets requests pass that may, with their caller in `scope["state"]["caller"]`."""

    def __init__(self, app: App, keys: KeyCheck, body_bytes: int):
        self._app, self._keys, self._body_bytes = app, keys, body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        is_guarded = path.startswith(GUARDED)
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        try:
            await self._keys.check_host(headers.get(b"host", "localhost"))
            if is_guarded and scope["method"] != "OPTIONS" and not path.startswith(BY_ADDRESS_ALONE):
                caller = await self._keys.caller_of(headers.get(b"authorization"))
                scope.setdefault("state", {})["caller"] = caller
            length = headers.get(b"content-length", "0")
            if is_guarded and (len(length) > 15 or int(length) > self._body_bytes):
                raise TooLargeError(self._body_bytes)
        except Exception as error:
            return await _answer(answer_of(error), send)
        await self._passed(scope, receive, send, self._body_bytes if is_guarded else None)

    async def _passed(self, scope: Scope, receive: Receive, send: Send, limit: int | None) -> None:
        """Pass a request on; count bytes of bodies that do not say how long they are, answer all errors."""
        num_bytes, is_too_large, has_begun = 0, False, False

        async def counted() -> MutableMapping[str, Any]:
            nonlocal num_bytes, is_too_large
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if limit is not None and num_bytes > limit:
                is_too_large = True
                raise TooLargeError(self._body_bytes)
            return message

        async def corrected(message: MutableMapping[str, Any]) -> None:
            nonlocal has_begun
            if is_too_large and not has_begun:  # whoever reads the body calls it unreadable
                if message["type"] == "http.response.start":
                    await _answer(answer_of(TooLargeError(self._body_bytes)), send)
                return
            has_begun = True
            await send(message)

        try:
            await self._app(scope, counted, corrected)
        except Exception as error:
            answer = answer_of(error)  # which logs what nobody foresaw
            if has_begun:
                raise
            await _answer(answer, send)


async def _answer(answer: Answer, send: Send) -> None:
    body = json.dumps(answer.body).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body))} | answer.headers
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
