"""What clients expect of every answer: a request id, rate-limit headers, HEAD, errors of the API's form.

Plain ASGI around the app, so that it holds for every route, the studio's too. Knows nothing of images.
"""

import asyncio
import re
from collections.abc import MutableMapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from lens.serve.api.errors import REQUEST_ID, ApiError, rate_limit_headers
from lens.serve.api.middleware import AsgiApp, Receive, Scope, Send

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

EXPOSED_HEADERS = (
    "ETag", "Location", "Retry-After", "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests", "x-request-id", "x-should-retry",
)  # fmt: skip
"""Headers of answers that pages of allowed origins may read."""
VALID_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
GRADIO_PREFIX = "/gradio_api/"
"""Gradio's page reads the errors of these addresses itself."""


OTHER_ADDRESSES = ("/v1", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json")
"""Addresses of the API beside those below /v1/."""


class ConventionsMiddleware:
    """Gives every answer an id and its caller's rate limit, and answers HEAD as GET without its body.

    It removes slashes that are too many: base URLs that end in one are common.
    """

    def __init__(self, app: AsgiApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        is_head, is_body_read, has_started = scope["method"] == "HEAD", False, asyncio.Event()
        request_id = _request_id(scope)
        method = "GET" if is_head else scope["method"]
        scope = dict(scope, method=method, path=_plain_address(scope["path"]))
        scope["state"] = dict(scope.get("state", {}))

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                has_started.set()
                headers = {"x-request-id": request_id}
                if (caller := scope["state"].get("caller")) is not None and caller.rate is not None:
                    headers |= rate_limit_headers(caller.rate)
                there = {name.lower() for name, _ in message.get("headers", [])}
                more = [(name.encode(), value.encode()) for name, value in headers.items()]
                message["headers"] = [
                    *message.get("headers", []), *(one for one in more if one[0] not in there)
                ]  # fmt: skip
            elif is_head:
                message["body"] = b""
            await send(message)

        async def receive_nothing() -> MutableMapping[str, Any]:
            nonlocal is_body_read
            if not is_body_read:
                is_body_read = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await has_started.wait()
            return {"type": "http.disconnect"}  # streams end at once

        token = REQUEST_ID.set(request_id)
        try:
            await self._app(scope, receive_nothing if is_head else receive, send_with_headers)
        finally:
            REQUEST_ID.reset(token)


def _plain_address(path: str) -> str:
    """Return the address of the API that a path means; any other path is unchanged."""
    plain = re.sub("/{2,}", "/", path).rstrip("/")
    return plain if plain.startswith("/v1/") or plain in OTHER_ADDRESSES else path


def _request_id(scope: Scope) -> str:
    """Return the id of a request: the one a proxy or the caller gave it, if that is one, or a new one."""
    given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"]
    is_valid = len(given) == 1 and VALID_REQUEST_ID.fullmatch(given[0])
    return given[0] if is_valid else f"req_{uuid4().hex}"


class ApiFirst:
    """An app mounted at `/` that answers no address of the API, and whose 404 and 405 have the API's form."""

    def __init__(self, app: AsgiApp, routes: "Sequence[BaseRoute]"):
        self.app, self._routes = app, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        from starlette.exceptions import HTTPException

        methods = self._other_methods(scope)
        if methods:
            raise HTTPException(405, headers={"Allow": ", ".join(methods)})
        path = scope["path"]
        if path == "/v1" or path.startswith("/v1/"):
            raise HTTPException(404)
        if path.startswith(GRADIO_PREFIX):
            return await self.app(scope, receive, send)
        status = 200

        async def send_checked(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            if status not in (404, 405):
                await send(message)

        await self.app(scope, receive, send_checked)
        if status in (404, 405):
            raise HTTPException(status)

    def _other_methods(self, scope: Scope) -> list[str]:
        """Return the methods that the API has for an address, if the one of the request is not among them."""
        from starlette.routing import Match

        found: set[str] = set()
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            trial = dict(scope, method=method)
            if any(route.matches(trial)[0] == Match.FULL for route in self._routes):
                found.add(method)
        return sorted(found)


def strict_query() -> Any:
    """Return the dependency of routes that refuse query parameters which they lack, or which repeat."""
    from fastapi import Depends, Request

    async def check(request: Request) -> None:
        known = {field.alias for field in request.scope["route"].dependant.query_params}
        seen: set[str] = set()
        for name, _ in request.query_params.multi_items():
            shown = name[:100]
            if name not in known:
                raise ApiError(400, f"Unknown query parameter: '{shown}'.", "unknown_parameter", shown)
            if name in seen:
                raise ApiError(400, f"Send the query parameter '{shown}' once.", "invalid_value", shown)
            seen.add(name)

    return Depends(check)


def no_idempotency_key() -> Any:
    """Return the dependency of routes that cannot honour an Idempotency-Key."""
    from fastapi import Depends, Request

    async def check(request: Request) -> None:
        if "idempotency-key" in request.headers:
            message = "Idempotency-Key is honoured by POST /v1/jobs, not here. Create a job, or leave it out."
            raise ApiError(400, message, "unsupported_header", "Idempotency-Key")

    return Depends(check)


def is_unchanged(if_none_match: str | None, etag: str) -> bool:
    """Return whether a caller has the content of an entity tag already."""
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in tags or "*" in tags
