"""Client of a chat endpoint with OpenAI's API: one request, one response, with retries.

Captions, rewards and the prompt enhancer use it. Knows nothing of what is asked. Calls block; for requests at
the same time, start threads that share one `ChatClient` and its limits.
"""

import base64
import json
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic import Field, model_validator

from lens.config import Settings
from lens.errors import LensError, SettingError

if TYPE_CHECKING:
    import httpx2

MAX_WAIT_S = 60.0
RETRYABLE_STATUSES = (408, 409, 425, 429)
"""Statuses below 500 at which another attempt may succeed."""
REJECTED_REQUEST_STATUSES = (400, 413, 415, 422)
"""Statuses at which the endpoint rejects this one request, while others may succeed."""
MAX_RESPONSE_BYTES = 64 * 2**20
"""A longer answer is no answer; log-probabilities of long ones take megabytes."""


class Endpoint(Settings):
    """The endpoint of a model, with limits of time and rate."""

    url: str
    """Base URL without `/chat/completions`, such as http://127.0.0.1:8000/v1."""
    model: str
    """Name of the model at the endpoint."""
    api_key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the API key; no key is sent where it is not set."""
    timeout_s: float = Field(120.0, gt=0)
    """Time limit of one attempt."""
    max_attempts: int = Field(6, ge=1)
    """Attempts at one request, the first one included."""
    first_wait_s: float = Field(1.0, ge=0)
    """Wait before the second attempt; it doubles with each attempt, up to a minute."""
    requests_per_minute: float | None = Field(None, gt=0)
    """Limit of the rate of attempts; None sets no limit."""


class LLMSettings(Settings):
    """A language model at an endpoint, and how a batch of tasks asks it."""

    endpoint: Endpoint
    concurrency: int = Field(8, ge=1)
    """Requests at the same time."""
    give_up_after: int = Field(20, ge=1)
    """Failed requests in a row after which the endpoint counts as down.

    For an endpoint that has not answered once in a run, the limit is at most `concurrency`.
    """
    max_tries: int = Field(3, ge=1)
    """Answers to one task at most; the model gets the error of each invalid one."""
    temperature: float = Field(0.9, ge=0)
    max_tokens: int = Field(1000, ge=1)
    """Largest length of an answer; a reasoning model needs more."""
    request: dict[str, Any] = Field(default_factory=dict)
    """Further fields of each request, such as response_format; null removes a field."""
    price_of_million_tokens: tuple[float, float] | None = None
    """Prices of prompt and completion tokens, in any currency; None counts tokens only."""

    @model_validator(mode="after")
    def _request_keeps_our_fields(self) -> Self:
        ours = {"model", "messages", "stream"} & set(self.request)
        if ours:
            raise SettingError("request", sorted(ours), "fields other than model, messages and stream")
        return self


class ChatResponse(NamedTuple):
    """One answer of a model."""

    text: str
    is_refused: bool
    """Whether the model or a content filter declined; the text is then the reason, if there is one."""
    is_cut: bool
    """Whether the answer reached the limit of its length."""
    prompt_tokens: int
    completion_tokens: int


TopLogprobs = tuple[dict[str, float], ...]
"""For each token of an answer: the log-probabilities of the most likely tokens there, by their text."""


class ChatError(LensError):
    """A request without a response; `is_final` where another attempt cannot succeed."""

    def __init__(self, message: str, is_final: bool, status: int | None = None):
        super().__init__(message)
        self.is_final, self.status = is_final, status


class ChatClient:
    """Client of one endpoint; threads may share it."""

    def __init__(self, endpoint: Endpoint, sleep: Callable[[float], None] = time.sleep):
        if not endpoint.url.startswith(("http://", "https://")):
            raise SettingError("endpoint.url", endpoint.url, "to begin with http:// or https://")
        import httpx2

        self.endpoint = endpoint
        key = os.environ.get(endpoint.api_key_variable)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = httpx2.Client(headers=headers, timeout=endpoint.timeout_s)
        self._sleep = sleep
        self._throttle = RequestThrottle(endpoint.requests_per_minute, sleep)

    def complete(self, messages: Sequence[dict[str, Any]], **sampling: Any) -> ChatResponse:
        """Return the answer to a conversation; `sampling` are further fields of the request.

        Raises: ChatError when every attempt failed, or the endpoint rejects the request.
        """
        return self._request_with_retries(messages, sampling)[0]

    def complete_with_logprobs(
        self, messages: Sequence[dict[str, Any]], num_top_logprobs: int, **sampling: Any
    ) -> tuple[ChatResponse, TopLogprobs]:
        """Return the answer and the log-probabilities of its tokens; () where the endpoint sends none.

        Raises: ChatError as `complete` does.
        """
        return self._request_with_retries(
            messages, {"logprobs": True, "top_logprobs": num_top_logprobs, **sampling}
        )

    def close(self) -> None:
        self._client.close()

    def _request_with_retries(
        self, messages: Sequence[dict[str, Any]], sampling: dict[str, Any]
    ) -> tuple[ChatResponse, TopLogprobs]:
        last: ChatError | None = None
        for attempt in range(self.endpoint.max_attempts):
            if last is not None:
                self._sleep(self._backoff_s(attempt, last))
            self._throttle.wait()
            try:
                return self._request_once(
                    {"model": self.endpoint.model, "messages": list(messages), **sampling}
                )
            except ChatError as error:
                if error.is_final:
                    raise
                last = error
        raise ChatError(f"{last} Gave up after {self.endpoint.max_attempts} attempts.", is_final=False)

    def _request_once(self, body: dict[str, Any]) -> tuple[ChatResponse, TopLogprobs]:
        import httpx2

        url = f"{self.endpoint.url.rstrip('/')}/chat/completions"
        too_late = f"{url} did not answer in {self.endpoint.timeout_s:g} s."
        deadline, content = time.monotonic() + self.endpoint.timeout_s, bytearray()
        try:
            with self._client.stream("POST", url, json=body) as response:
                for part in response.iter_bytes():
                    content += part
                    # The client's own limit is for each part: one that sends slowly would never reach it.
                    if time.monotonic() > deadline:
                        raise ChatError(too_late, False)
                    if len(content) > MAX_RESPONSE_BYTES:
                        raise ChatError(f"{url} answers with more than {MAX_RESPONSE_BYTES} bytes.", False)
        except httpx2.TimeoutException as error:
            raise ChatError(too_late, False) from error
        except httpx2.RequestError as error:
            raise ChatError(f"{url} cannot be reached ({error}).", False) from error
        status = response.status_code
        if status in RETRYABLE_STATUSES or status >= 500:
            raise RetryableError(f"{url} answers {status}.", _retry_after_s(response))
        if status >= 400:
            hint = f" Check the key in {self.endpoint.api_key_variable}." if status in (401, 403) else ""
            said = content[:800].decode(errors="replace")[:200].strip()
            raise ChatError(f"{url} answers {status}: {said}.{hint}", True, status)
        return _parse_response(bytes(content), url)

    def _backoff_s(self, attempt: int, error: ChatError) -> float:
        # The random factor spreads workers that failed together.
        backoff_s = min(MAX_WAIT_S, self.endpoint.first_wait_s * 2 ** (attempt - 1))
        requested_s = error.retry_after_s if isinstance(error, RetryableError) else 0.0
        return max(min(requested_s, MAX_WAIT_S), backoff_s * random.uniform(0.5, 1))


class RetryableError(ChatError):
    """The endpoint is up but cannot answer now."""

    def __init__(self, message: str, retry_after_s: float):
        super().__init__(message, is_final=False)
        self.retry_after_s = retry_after_s


class RequestThrottle:
    """Spaces calls of several threads evenly in time."""

    def __init__(self, per_minute: float | None, sleep: Callable[[float], None] = time.sleep):
        self._interval_s = 60.0 / per_minute if per_minute else 0.0
        self._sleep, self._lock, self._next_at = sleep, threading.Lock(), 0.0

    def wait(self) -> None:
        """Return when this thread's turn has come."""
        with self._lock:
            now = time.monotonic()
            turn_at = max(now, self._next_at)
            self._next_at = turn_at + self._interval_s
        if turn_at > now:
            self._sleep(turn_at - now)


def image_part(content: bytes, media_type: str) -> dict[str, Any]:
    """Return a picture as a part of a message."""
    data = base64.b64encode(content).decode()
    return {"type": "image_url", "image_url": {"url": f"data:{media_type};base64,{data}"}}


def text_part(text: str) -> dict[str, Any]:
    """Return words as a part of a message."""
    return {"type": "text", "text": text}


def _parse_response(content: bytes, url: str) -> tuple[ChatResponse, TopLogprobs]:
    try:
        answer = json.loads(content)
        choice = answer["choices"][0]
        message, usage = choice["message"], answer.get("usage") or {}
        refusal = message.get("refusal")
        finish = choice.get("finish_reason")
        counts = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
        is_refused = bool(refusal) or finish == "content_filter"
        # A filter leaves a part of the answer, which is none.
        text = str(refusal or "") if is_refused else _text_of(message.get("content"))
        return ChatResponse(text, is_refused, finish == "length", *counts), _parse_logprobs(choice)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        # Overloaded servers send such answers; the next attempt may succeed.
        raise ChatError(f"{url} answers, but not with a chat completion ({error}).", False) from error


def _text_of(content: Any) -> str:
    """Return the text of a message; some servers send it in parts, with what the model thought among them."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if part.get("type") == "text")
    return str(content or "")


def _parse_logprobs(choice: dict[str, Any]) -> TopLogprobs:
    places = (choice.get("logprobs") or {}).get("content") or []
    return tuple(
        {str(one["token"]): float(one["logprob"]) for one in [*(place.get("top_logprobs") or []), place]}
        for place in places
    )


def _retry_after_s(response: "httpx2.Response") -> float:
    try:
        return float(response.headers.get("retry-after", 0))
    except ValueError:  # a date; the growing wait is enough
        return 0.0
