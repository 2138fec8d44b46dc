"""Security middleware: authentication, host check, rate limits and size limits of every request.

Plain ASGI, so that streams pass unchanged. Knows nothing of images.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from lens.serve.api.errors import ApiError, ErrorResponse, error_response
from lens.serve.settings.server import ServerSettings
from lens.serve.storage.api_keys import ApiKey, CallerRateLimiter
from lens.serve.storage.server_state import ServerState

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

PROTECTED_PREFIXES = ("/v1/", "/metrics", "/docs", "/redoc", "/openapi.json")
PUBLIC_IMAGE_PREFIX = "/v1/pictures/"
"""Image addresses are random and need no API key: only their owner knows them."""
ANONYMOUS_OWNER = "local"
KEY_CACHE_TTL_S = 5.0
"""How long keys are cached."""


class Caller(NamedTuple):
    """The caller of a request."""

    owner: str
    """Owner of the jobs of this caller."""
    key: ApiKey | None = None

    def fair_queue_key(self, user: str | None) -> str:
        """Return the caller for the fair queue: the key, or without keys the user that the request names."""
        return self.owner if self.key is not None else f"user:{user}" if user else self.owner


class RequestTooLargeError(ApiError):
    """A request body above the size limit."""

    def __init__(self, limit: int):
        super().__init__(413, f"The request body is larger than {limit} bytes.", "request_too_large")


class Authenticator:
    """Identifies the caller of a request by its API key."""

    def __init__(self, store: ServerState, settings: ServerSettings):
        self._keys, self._settings, self._rate_limiter = store.api_keys, settings, CallerRateLimiter()
        self._key_cache: dict[str, tuple[float, ApiKey | None]] = {}
        self._has_key_cache = (float("-inf"), False)
        public_host = urlsplit(settings.public_url or "").hostname
        self._allowed_hosts = {"localhost", "127.0.0.1", "::1", settings.host, public_host}

    async def authenticate(self, authorization: str | None) -> Caller:
        """Return the caller.

        Raises: ApiError (401) for a missing or unknown key if one is required; QueueFullError.
        """
        now = time.monotonic()
        if not await self.is_key_required():
            return Caller(ANONYMOUS_OWNER)
        kind, _, text = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not text.strip():
            raise ApiError(401, "Send an API key in the header Authorization: Bearer KEY.", "missing_api_key")
        key = await self._find_key(text.strip(), now)
        if key is None:
            raise ApiError(401, "This API key is not valid.", "invalid_api_key")
        self._rate_limiter.acquire(
            key.id, key.requests_per_minute or self._settings.limits.requests_per_minute
        )
        return Caller(key.id, key)

    async def is_key_required(self) -> bool:
        """Return whether callers need an API key."""
        now = time.monotonic()
        if now - self._has_key_cache[0] > KEY_CACHE_TTL_S:
            self._has_key_cache = now, bool(await asyncio.to_thread(self._keys.list_keys))
        return self._settings.needs_key(self._has_key_cache[1])

    async def check_host(self, host: str) -> None:
        """Raise ApiError if a server without keys is called by an unknown host name.

        Otherwise web pages could reach it through a name of their own that resolves to this machine (DNS
        rebinding).
        """
        name = urlsplit(f"//{host}").hostname
        if name not in self._allowed_hosts and not await self.is_key_required():
            message = f"{name!r} is not a host name of this server. The operator can set public_url."
            raise ApiError(421, message, "misdirected_request")

    async def _find_key(self, text: str, now: float) -> ApiKey | None:
        cached_at, key = self._key_cache.get(text, (-KEY_CACHE_TTL_S, None))
        if now - cached_at > KEY_CACHE_TTL_S:
            key = await asyncio.to_thread(self._keys.find, text)
            if key is not None:  # unknown keys are not cached
                self._key_cache[text] = now, key
            else:
                self._key_cache.pop(text, None)
        return key


class SecurityMiddleware:
    """Rejects requests without permission; puts the caller into `scope["state"]["caller"]`."""

    def __init__(self, app: AsgiApp, keys: Authenticator, body_bytes: int):
        self._app, self._authenticator, self._body_bytes = app, keys, body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        is_protected = path.startswith(PROTECTED_PREFIXES)
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        try:
            await self._authenticator.check_host(headers.get(b"host", "localhost"))
            if is_protected and scope["method"] != "OPTIONS" and not path.startswith(PUBLIC_IMAGE_PREFIX):
                caller = await self._authenticator.authenticate(headers.get(b"authorization"))
                scope.setdefault("state", {})["caller"] = caller
            length = headers.get(b"content-length", "0")
            if is_protected and (len(length) > 15 or int(length) > self._body_bytes):
                raise RequestTooLargeError(self._body_bytes)
        except Exception as error:
            return await _send_error(error_response(error), send)
        await self._forward(scope, receive, send, self._body_bytes if is_protected else None)

    async def _forward(self, scope: Scope, receive: Receive, send: Send, limit: int | None) -> None:
        """Forward a request; count the bytes of its body, and turn all errors into responses."""
        num_bytes, is_too_large, has_started = 0, False, False

        async def receive_limited() -> MutableMapping[str, Any]:
            nonlocal num_bytes, is_too_large
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if limit is not None and num_bytes > limit:
                is_too_large = True
                raise RequestTooLargeError(self._body_bytes)
            return message

        async def send_checked(message: MutableMapping[str, Any]) -> None:
            nonlocal has_started
            if is_too_large and not has_started:  # the reader of the body reports it as malformed
                if message["type"] == "http.response.start":
                    await _send_error(error_response(RequestTooLargeError(self._body_bytes)), send)
                return
            has_started = True
            await send(message)

        try:
            await self._app(scope, receive_limited, send_checked)
        except Exception as error:
            response = error_response(error)  # logs unexpected errors
            if has_started:
                raise
            await _send_error(response, send)


async def _send_error(response: ErrorResponse, send: Send) -> None:
    body = json.dumps(response.body).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body))} | response.headers
    raw_headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": response.status, "headers": raw_headers})
    await send({"type": "http.response.body", "body": body})
