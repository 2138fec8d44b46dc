"""Security middleware: authentication, host check, rate limits and size limits of every request.

Plain ASGI, so that streams pass unchanged. Knows nothing of images.
"""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from lens.errors import QueueFullError
from lens.serve.api.errors import ApiError, ErrorResponse, RequestTooLargeError, error_response
from lens.serve.retry_after import HeldRequests
from lens.serve.settings.server import ServerSettings
from lens.serve.storage.api_keys import ApiKey, CallerRateLimiter, RateStatus
from lens.serve.storage.server_state import ServerState

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

PROTECTED_PREFIXES = ("/v1/", "/metrics", "/docs", "/redoc", "/openapi.json")
PUBLIC_IMAGE_PREFIX = "/v1/pictures/"
"""Image addresses are random and need no API key: only their owner knows them."""
LARGE_BODY_PATHS = (
    "/v1/jobs", "/v1/images/edits", "/gradio_api/upload", "/gradio_api/component_server"
)  # fmt: skip
"""Where bodies may hold images."""
CLOSED_PREFIXES = ("/gradio_api/dev/", "/gradio_api/process_recording")
"""Routes of Gradio that the studio does not use: a stream without end, and files outside of its folder."""
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
HOST_PATTERN = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.~-]+)(?::[0-9]{1,5})?", re.ASCII)
DEFAULT_PORTS = {"http": 80, "https": 443}
FRAME_POLICY = (b"content-security-policy", b"frame-ancestors 'self'")
"""Pages of other sites may not show the studio in a frame, where people click without knowing what on."""
NUM_LARGE_BODIES = 8
"""Bodies of the largest size that are held at a time."""
HELD_S = 5.0
"""How long a large body is held, before any was answered."""
ANONYMOUS_OWNER = "local"
KEY_CACHE_TTL_S = 5.0
"""How long keys are cached."""


class Caller(NamedTuple):
    """The caller of a request."""

    owner: str
    """Owner of the jobs of this caller."""
    key: ApiKey | None = None
    rate: RateStatus | None = None
    """Rate limit of the key, if it has one."""

    def fair_queue_key(self, user: str | None) -> str:
        """Return the caller for the fair queue: the key, or without keys the user that the request names."""
        return self.owner if self.key is not None else f"user:{user}" if user else self.owner


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
        limit = key.requests_per_minute or self._settings.limits.requests_per_minute
        return Caller(key.id, key, self._rate_limiter.acquire(key.id, limit))

    async def is_key_required(self) -> bool:
        """Return whether callers need an API key."""
        now = time.monotonic()
        if now - self._has_key_cache[0] > KEY_CACHE_TTL_S:
            self._has_key_cache = now, bool(await asyncio.to_thread(self._keys.list_keys))
        return self._settings.needs_key(self._has_key_cache[1])

    async def check_host(self, name: str) -> None:
        """Raise ApiError if a server without keys is called by an unknown host name.

        Otherwise web pages could reach it through a name of their own that resolves to this machine (DNS
        rebinding).
        """
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


class OriginPolicy:
    """Refuses what pages of other sites make browsers send: forms and scripts post without asking first."""

    def __init__(self, settings: ServerSettings):
        self._cors_origins = set(settings.cors_origins)
        self._public_origin = _origin(settings.public_url) if settings.public_url else None

    def check(self, method: str, host: str, origins: list[str], fetch_site: str | None) -> None:
        """Raise ApiError (403) for a request that may change something and comes from a page of another site.

        Clients that are no browsers send neither Origin nor Sec-Fetch-Site.
        """
        if method in SAFE_METHODS or (origins and self._are_allowed(origins)):
            return
        own = {_origin(f"{scheme}://{host}") for scheme in ("http", "https")} | {self._public_origin}
        own.discard(None)  # what is no origin, such as null, is not ours
        is_foreign = fetch_site == "cross-site" or any(_origin(one) not in own for one in origins)
        if is_foreign or (fetch_site == "same-site" and not origins):
            message = (
                f"Pages of {origins[0][:100] if origins else 'other sites'!r} may not use this server. "
                "The operator can set public_url or cors_origins."
            )
            raise ApiError(403, message, "foreign_origin")

    def _are_allowed(self, origins: list[str]) -> bool:
        return "*" in self._cors_origins or all(one in self._cors_origins for one in origins)


class SecurityMiddleware:
    """Rejects requests without permission; puts the caller into `scope["state"]["caller"]`."""

    def __init__(self, app: AsgiApp, keys: Authenticator, settings: ServerSettings):
        self._app, self._authenticator, self._limits = app, keys, settings.limits
        self._origin_policy = OriginPolicy(settings)
        self._num_held_bytes = 0
        """Bytes of the large bodies of all requests that are not answered yet."""
        self._held = HeldRequests(HELD_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # no route has one, and browsers open them from any page
            return await send({"type": "websocket.close", "code": 1008})
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        path = scope["path"]
        limit = self._limits.body_bytes
        if path not in LARGE_BODY_PATHS:
            limit = min(limit, self._limits.json_bytes)
        try:
            await self._check(scope, path, limit)
        except Exception as error:
            return await _send_error(error_response(error), send)
        await self._forward(scope, receive, send, limit)

    async def _check(self, scope: Scope, path: str, limit: int) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        hosts, origins = (
            [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]
            for wanted in (b"host", b"origin")
        )
        if len(hosts) > 1 or not (host := HOST_PATTERN.fullmatch(hosts[0] if hosts else "localhost")):
            raise ApiError(400, "The header Host is not one host name.", "invalid_host")
        if "\0" in path or b"%00" in scope.get("query_string", b""):  # PostgreSQL does not store it
            raise ApiError(400, "The address contains a NUL character.", "invalid_address")
        await self._authenticator.check_host(host[1].strip("[]").lower())
        fetch_site = headers.get(b"sec-fetch-site")
        self._origin_policy.check(scope["method"], host[0], origins, fetch_site)
        if path.startswith(CLOSED_PREFIXES):
            raise ApiError(404, "Not Found", "not_found")
        is_protected = path.startswith(PROTECTED_PREFIXES) and not path.startswith(PUBLIC_IMAGE_PREFIX)
        if is_protected and scope["method"] != "OPTIONS":
            caller = await self._authenticator.authenticate(headers.get(b"authorization"))
            scope.setdefault("state", {})["caller"] = caller
        length = headers.get(b"content-length", "0")
        if len(length) > 15 or int(length) > limit:
            raise RequestTooLargeError(limit)

    async def _forward(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        """Forward a request; count the bytes of its body, and turn all errors into responses."""
        from starlette.requests import ClientDisconnect

        refusal: Exception | None = None
        num_bytes, has_started = 0, False
        is_held, key = limit > self._limits.json_bytes, object()

        async def receive_limited() -> MutableMapping[str, Any]:
            nonlocal num_bytes, refusal
            message = await receive()
            num_new = len(message.get("body", b""))
            num_bytes += num_new
            if is_held and num_bytes > self._limits.json_bytes:
                self._held.begin(key)
            self._num_held_bytes += num_new if is_held else 0
            if num_bytes > limit:
                refusal = RequestTooLargeError(limit)
            elif is_held and self._num_held_bytes > NUM_LARGE_BODIES * self._limits.body_bytes:
                self._held.begin(key)
                text = "The server holds as many large requests as it can."
                refusal = QueueFullError(text, self._held.retry_after_s())
            if refusal is not None:
                raise refusal
            return message

        async def send_checked(message: MutableMapping[str, Any]) -> None:
            nonlocal has_started
            if refusal is not None and not has_started:  # the reader of the body reports it as malformed
                if message["type"] == "http.response.start":
                    await _send_error(error_response(refusal), send)
                return
            if message["type"] == "http.response.start":
                has_started = True
                message["headers"] = [*message.get("headers", []), FRAME_POLICY]
            await send(message)

        try:
            await self._app(scope, receive_limited, send_checked)
        except Exception as error:
            if isinstance(error, ClientDisconnect):  # before its body was complete
                return
            response = error_response(error)  # logs unexpected errors
            if has_started:
                raise
            await _send_error(response, send)
        finally:
            self._num_held_bytes -= num_bytes if is_held else 0
            self._held.end(key, counts=refusal is None)


def _origin(url: str) -> str | None:
    """Return scheme, host and port of a URL, without the port that the scheme implies; None for no URL."""
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    return f"{parts.scheme}://{parts.hostname}:{port}" if parts.scheme and parts.hostname else None


async def _send_error(response: ErrorResponse, send: Send) -> None:
    body = json.dumps(response.body).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body))} | response.headers
    raw_headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": response.status, "headers": raw_headers})
    await send({"type": "http.response.body", "body": body})
