"""HTTP errors: every error becomes {"error": {"message", "type", "param", "code"}} and a status.

Unexpected errors are logged; their response has no details.
"""

import logging
import math
import re
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel

from lens.config import needs_of
from lens.errors import (
    DeadlineError,
    DrainingError,
    GenerationCancelledError,
    LensError,
    MemoryNeedError,
    ModerationError,
    PromptRefusedError,
    QueueFullError,
    SettingError,
)
from lens.serve.storage.api_keys import RateLimitError, RateStatus
from lens.serve.storage.database import StorageError, storage_error
from lens.serve.storage.jobs import IdempotencyError

if TYPE_CHECKING:
    from fastapi import FastAPI

logger = logging.getLogger(__name__)
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="-")
"""Id of the request that is being answered, for its log lines."""
FINAL_STATUSES = (408, 409)
"""Statuses that OpenAI's clients repeat a request after, though the same request would fail again."""
DRAINING_RETRY_S = 5
"""When to try again where a server ends: soon, as another one may answer behind the same address."""
OUTAGE_RETRY_S = 30
"""When to try again after an outage of a disk or another server, whose end nobody knows."""
MAX_ECHO_CHARACTERS = 100
"""What errors repeat of an address."""
INVALID_REQUEST_ERROR, SERVER_ERROR = "invalid_request_error", "server_error"


class ErrorDetail(BaseModel):
    """An error, for people and for programs."""

    message: str
    type: str
    param: str | None
    code: str
    category: str | None = None
    """Of the operator's policy, where a reasoner refuses a prompt by it."""


class ErrorBody(BaseModel):
    """The body of every error."""

    error: ErrorDetail


# Keyed by "4XX": otherwise FastAPI documents its own 422, which this API never returns.
ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "model": ErrorBody,
        "description": "400 invalid request, 401 missing or unknown API key, 404 not found, 408 deadline "
        "exceeded, 409 cancelled or idempotency key reused, 413 body too large, 421 wrong host, 429 too many "
        "requests.",
    },
    "5XX": {
        "model": ErrorBody,
        "description": "500 internal error, 503 shutting down or a service is unavailable, 507 storage full.",
    },
}
"""Error responses in the OpenAPI document."""


class ApiError(LensError):
    """An error with an HTTP status."""

    def __init__(self, status: int, message: str, code: str, param: str | None = None):
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


class RequestTooLargeError(ApiError):
    """A request body above a size limit."""

    def __init__(self, limit: int):
        super().__init__(413, f"The request body is larger than {limit} bytes.", "request_too_large")


class ErrorResponse(NamedTuple):
    """The response to an error."""

    status: int
    message: str
    code: str
    param: str | None = None
    retry_after_s: float | None = None
    rate: RateStatus | None = None
    category: str | None = None

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object."""
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, INVALID_REQUEST_ERROR if self.status < 500 else SERVER_ERROR)
        fields = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": fields if self.category is None else fields | {"category": self.category}}

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the response."""
        headers = {} if self.rate is None else rate_limit_headers(self.rate)
        if self.status in FINAL_STATUSES:
            headers["x-should-retry"] = "false"
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        if self.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="lens"'
        return headers


def rate_limit_headers(rate: RateStatus) -> dict[str, str]:
    """Return the headers by which OpenAI's API tells a caller's rate limit."""
    return {
        "x-ratelimit-limit-requests": str(rate.limit),
        "x-ratelimit-remaining-requests": str(rate.remaining),
        "x-ratelimit-reset-requests": f"{rate.reset_s:.3f}s",
    }


def error_response(error: BaseException) -> ErrorResponse:
    """Return the response to an error; log an unexpected one."""
    text = " ".join(str(error).split())
    if isinstance(error, ApiError):
        return ErrorResponse(error.status, text, error.code, error.param)
    if isinstance(error, SettingError):
        return ErrorResponse(400, text, "invalid_value", error.setting)
    if isinstance(error, QueueFullError):
        rate = error.rate if isinstance(error, RateLimitError) else None
        return ErrorResponse(429, text, "rate_limit_exceeded", retry_after_s=error.retry_after_s, rate=rate)
    if isinstance(error, DrainingError):
        return ErrorResponse(503, text, "draining", retry_after_s=DRAINING_RETRY_S)
    if isinstance(error, PromptRefusedError):
        text = without_places(text)
        if error.is_unavailable:
            return ErrorResponse(503, text, "reasoner_unavailable", "enhance", retry_after_s=OUTAGE_RETRY_S)
        return ErrorResponse(400, text, "prompt_refused", "prompt", category=error.category)
    if isinstance(error, ModerationError):
        if error.is_unavailable:
            return ErrorResponse(503, text, "moderation_unavailable", retry_after_s=OUTAGE_RETRY_S)
        param = "prompt" if error.what == "prompt" else None
        return ErrorResponse(400, text, "content_policy_violation", param)
    if isinstance(error, IdempotencyError):
        return ErrorResponse(409, text, "idempotency_key_reused", "Idempotency-Key")
    if isinstance(error, DeadlineError):
        return ErrorResponse(408, text, "deadline_exceeded", "deadline_s")
    if isinstance(error, GenerationCancelledError):
        return ErrorResponse(409, text or "The image was cancelled.", "cancelled")
    if isinstance(error, MemoryNeedError):
        return ErrorResponse(400, text, "too_large", "size")
    storage = storage_error(error) if isinstance(error, Exception) else None
    if isinstance(storage, StorageError):
        logger.error("request %s: %s", REQUEST_ID.get(), storage)
        if storage.is_full:
            text = "The server's disk is full. Delete jobs, or try again later."
            return ErrorResponse(507, text, "storage_full", retry_after_s=OUTAGE_RETRY_S)
        text = f"The server cannot read or write its storage. {_see_log()}"
        return ErrorResponse(507, text, "storage_unavailable", retry_after_s=OUTAGE_RETRY_S)
    logger.error("request %s: unexpected error: %s", REQUEST_ID.get(), error, exc_info=error)
    if isinstance(error, LensError):
        return ErrorResponse(500, without_places(text), "server_error")
    return ErrorResponse(500, f"Internal error. {_see_log()}", "server_error")


def without_places(text: str) -> str:
    """Return a message without what it tells of the server: folders, URLs, addresses in memory."""
    text = re.sub(r"\w+://[^\s'\")]+", "(an address)", text)
    text = re.sub(r"(?<![\w.:])/(?:[^\s/'\":]+/)+", "", text)
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _see_log() -> str:
    return f"The server's log says why (request {REQUEST_ID.get()})."


def validation_error_response(problems: list[Any]) -> ErrorResponse:
    """Return the response to a body or query that does not match its schema; it names the parameter."""
    problem = problems[0]
    place = [str(part) for part in problem["loc"]]
    param = place[1] if len(place) > 1 and not place[1].isdigit() else None
    if problem["type"] == "extra_forbidden":
        return ErrorResponse(400, f"Unknown parameter: '{param}'.", "unknown_parameter", param)
    if problem["type"] == "missing" and param:
        return ErrorResponse(
            400, f"Missing required parameter: '{param}'.", "missing_required_parameter", param
        )
    if problem["type"] == "json_invalid":
        return ErrorResponse(400, "The body is not valid JSON.", "invalid_json")
    prefix = f"Invalid value for '{'.'.join(place[1:])}': " if param else "Invalid request body: "
    return ErrorResponse(400, f"{prefix}it needs {needs_of(problem)}.", "invalid_value", param)


def _address_hint(address: str) -> str:
    """Return what to do about an address that does not exist; base URLs differ in whether they have /v1."""
    first = address.strip("/").partition("/")[0]
    if first in ("models", "images", "jobs", "pictures"):
        return "The addresses of the API begin with /v1: end the base URL with it."
    if address.startswith("/v1/v1"):
        return "It has /v1 twice: the base URL ends with it already."
    return "See /openapi.json for the addresses of this server."


def add_error_handlers(app: "FastAPI") -> None:
    """Make an app answer every error in this form."""
    from fastapi import Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    def to_json_response(response: ErrorResponse) -> JSONResponse:
        return JSONResponse(response.body, response.status, response.headers)

    async def handle_known_error(_: Request, error: Exception) -> JSONResponse:
        return to_json_response(error_response(error))

    async def handle_validation_error(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return to_json_response(validation_error_response(list(error.errors())))

    async def handle_http_exception(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        codes = {404: "not_found", 405: "method_not_allowed"}
        address = request.url.path[:MAX_ECHO_CHARACTERS]
        allowed = (error.headers or {}).get("Allow", "other methods are")
        texts = {
            404: f"There is nothing at {address}. {_address_hint(address)}",
            405: f"{request.method} is not allowed at {address}, but {allowed}.",
        }
        response = ErrorResponse(
            error.status_code,
            texts.get(error.status_code, str(error.detail)),
            codes.get(error.status_code, "http_error"),
        )
        return JSONResponse(response.body, response.status, dict(error.headers or {}) | response.headers)

    app.add_exception_handler(LensError, handle_known_error)
    app.add_exception_handler(OSError, handle_known_error)
    app.add_exception_handler(RequestValidationError, handle_validation_error)
    app.add_exception_handler(HTTPException, handle_http_exception)
    try:
        from sqlalchemy.exc import SQLAlchemyError

        app.add_exception_handler(SQLAlchemyError, handle_known_error)
    except ImportError:
        return
