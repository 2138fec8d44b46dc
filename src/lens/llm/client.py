"""A chat endpoint that speaks OpenAI's API: one question, one answer, whatever the network does meanwhile.

Captions, rewards and the reasoner ask through it. Knows nothing of what is asked. Calls block: whoever wants
several at once starts threads, which share one `Chat` and its limits.
"""

import base64
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import httpx2
from pydantic import Field

from lens.config import Settings
from lens.errors import LensError, SettingError

MAX_WAIT_S = 60.0
RETRYABLE_STATUSES = (408, 409, 425, 429)
"""Statuses below 500 that another attempt may pass."""


class Endpoint(Settings):
    """Where a model answers, and how hard it may be asked."""

    url: str
    """Up to and without `/chat/completions`, such as http://127.0.0.1:8000/v1."""
    model: str
    """Name that the endpoint knows the model by."""
    api_key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; where it is not set, none is sent."""
    timeout_s: float = Field(120.0, gt=0)
    """For one attempt."""
    max_attempts: int = Field(6, ge=1)
    """Of one question, the first one included."""
    first_wait_s: float = Field(1.0, ge=0)
    """Before the second attempt; doubles from one to the next, up to a minute."""
    requests_per_minute: float | None = Field(None, gt=0)
    """Attempts are spaced so that there are no more; None does not hold them back."""


class ChatResponse(NamedTuple):
    """One answer."""

    text: str
    is_refused: bool
    """The model or a filter in front of it declined; the text then says why, if anything does."""
    is_cut: bool
    """The answer ran into the limit of its length."""
    prompt_tokens: int
    completion_tokens: int


TopLogprobs = tuple[dict[str, float], ...]
"""For each token of an answer the log-probabilities of the likeliest tokens there, by their text."""


class ChatError(LensError):
    """A question that got no answer; `is_final` where asking again cannot help."""

    def __init__(self, message: str, is_final: bool, status: int | None = None):
        super().__init__(message)
        self.is_final, self.status = is_final, status


class ChatClient:
    """Asks one endpoint; safe to share among threads."""

    def __init__(self, endpoint: Endpoint, sleep: Callable[[float], None] = time.sleep):
        if not endpoint.url.startswith(("http://", "https://")):
            raise SettingError("endpoint.url", endpoint.url, "to begin with http:// or https://")
        self.endpoint = endpoint
        key = os.environ.get(endpoint.api_key_variable)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = httpx2.Client(headers=headers, timeout=endpoint.timeout_s)
        self._sleep = sleep
        self._throttle = RequestThrottle(endpoint.requests_per_minute, sleep)

    def complete(self, messages: Sequence[dict[str, Any]], **sampling: Any) -> ChatResponse:
        """Return the answer to a conversation; `sampling` goes into the request as it is.

        Raises: ChatError when every attempt failed, or the endpoint says that none can succeed.
        """
        return self._request_with_retries(messages, sampling)[0]

    def complete_with_logprobs(
        self, messages: Sequence[dict[str, Any]], num_top_logprobs: int, **sampling: Any
    ) -> tuple[ChatResponse, TopLogprobs]:
        """Return the answer, and how likely the tokens were at each place of it; () where nobody tells.

        Raises: ChatError as `ask` does.
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
        url = f"{self.endpoint.url.rstrip('/')}/chat/completions"
        try:
            response = self._client.post(url, json=body)
        except httpx2.TimeoutException as error:
            raise ChatError(f"{url} did not answer in {self.endpoint.timeout_s:g} s.", False) from error
        except httpx2.TransportError as error:
            raise ChatError(f"{url} cannot be reached ({error}).", False) from error
        status = response.status_code
        if status in RETRYABLE_STATUSES or status >= 500:
            raise RetryableError(f"{url} answers {status}.", _retry_after_s(response))
        if status >= 400:
            hint = f" Is the key in {self.endpoint.api_key_variable} right?" if status in (401, 403) else ""
            raise ChatError(f"{url} answers {status}: {response.text[:200].strip()}.{hint}", True, status)
        return _parse_response(response, url)

    def _backoff_s(self, attempt: int, error: ChatError) -> float:
        # Drawn from half of it up: many workers that failed together do not come back together.
        backoff_s = min(MAX_WAIT_S, self.endpoint.first_wait_s * 2 ** (attempt - 1))
        requested_s = error.retry_after_s if isinstance(error, RetryableError) else 0.0
        return max(min(requested_s, MAX_WAIT_S), backoff_s * random.uniform(0.5, 1))


class RetryableError(ChatError):
    """The endpoint is there but cannot answer now."""

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


def _parse_response(response: httpx2.Response, url: str) -> tuple[ChatResponse, TopLogprobs]:
    try:
        answer = response.json()
        choice = answer["choices"][0]
        message, usage = choice["message"], answer.get("usage") or {}
        refusal = message.get("refusal")
        finish = choice.get("finish_reason")
        counts = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
        is_refused = bool(refusal) or finish == "content_filter"
        text = (refusal if is_refused else message.get("content")) or ""  # a filter leaves half an answer
        return ChatResponse(str(text), is_refused, finish == "length", *counts), _parse_logprobs(choice)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        # Seen from overloaded servers, which answer the next time.
        raise ChatError(f"{url} answers what is no chat completion ({error}).", is_final=False) from error


def _parse_logprobs(choice: dict[str, Any]) -> TopLogprobs:
    places = (choice.get("logprobs") or {}).get("content") or []
    return tuple(
        {str(one["token"]): float(one["logprob"]) for one in [*(place.get("top_logprobs") or []), place]}
        for place in places
    )


def _retry_after_s(response: httpx2.Response) -> float:
    try:
        return float(response.headers.get("retry-after", 0))
    except ValueError:  # a date: the growing wait will do
        return 0.0
