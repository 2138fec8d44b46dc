"""Batches of tasks for a language model: requests in parallel, retries of invalid answers, a disk cache.

A batch that was stopped or killed resumes without repeating answered requests. Knows nothing of what is
asked: a task has its messages, and parses an answer or says what is wrong with it.
"""

import json
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar

from lens.errors import LensError
from lens.llm.client import REJECTED_REQUEST_STATUSES, ChatClient, ChatError, LLMSettings
from lens.llm.response_cache import ResponseCache, response_key

REQUEST_REJECTED = "turned_down"
"""Reason of a task whose request the endpoint rejected; the only reason that a later run tries again."""

T = TypeVar("T")
Message = dict[str, Any]


class InvalidResponse(Exception):
    """An answer that a task cannot use."""

    def __init__(self, reason: str, feedback: str):
        super().__init__(feedback)
        self.reason = reason
        """One word, for counting."""
        self.feedback = feedback
        """What is wrong with the answer; the model gets it with the next try."""


class EndpointError(LensError):
    """An endpoint that does not answer; the same command resumes with the missing tasks."""


class LLMTask(NamedTuple, Generic[T]):
    """One answer that a model has to give."""

    name: str
    """Unique in its batch."""
    messages: tuple[Message, ...]
    parse: Callable[[str], T]
    """Turns the text of an answer into the result. Raises: InvalidResponse."""


class TaskResult(NamedTuple, Generic[T]):
    """Result of a task, or the reason that there is none."""

    result: T | None
    reason: str = ""
    """What was wrong with the last answer, in one word."""
    num_tries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class LLMBatch:
    """Client of one model that caches its answers in a file. Only one process may use the file."""

    def __init__(self, model: LLMSettings, cache_path: Path):
        self.model = model
        self.num_calls = 0
        """Answers of the endpoint, without those from the cache."""
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._client = ChatClient(model.endpoint, sleep=self._sleep)
        self._cache = ResponseCache(cache_path)
        self._pool = ThreadPoolExecutor(model.concurrency)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Send no further requests; wait for the pending answers and keep them."""
        self._stopped.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._cache.close()
        self._client.close()

    def run(self, tasks: Iterable[LLMTask[T]]) -> Iterator[tuple[str, TaskResult[T]]]:
        """Yield the name and the result of each task as soon as it is done.

        Raises: EndpointError when the endpoint does not answer, or rejects all requests.
        """
        remaining, pending = iter(tasks), dict[Future[TaskResult[T]], str]()
        failed, num_consecutive_failures, num_done = list[ChatError](), 0, 0
        while True:
            while len(pending) < 2 * self.model.concurrency and (task := next(remaining, None)):
                pending[self._pool.submit(self._run_task, task)] = task.name
            if not pending:
                break
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                name = pending.pop(future)
                try:
                    outcome, num_consecutive_failures = future.result(), 0
                except ChatError as error:
                    num_consecutive_failures += 1
                    is_request_specific = error.status in REJECTED_REQUEST_STATUSES
                    if num_consecutive_failures >= self._max_consecutive_failures or (
                        error.is_final and not is_request_specific
                    ):
                        raise _endpoint_error(error, num_done) from error
                    if not is_request_specific:
                        failed.append(error)
                        continue
                    outcome = TaskResult(None, REQUEST_REJECTED)
                num_done += 1
                yield name, outcome
        if failed:
            raise _endpoint_error(failed[-1], num_done)

    @property
    def _max_consecutive_failures(self) -> int:
        """Return how many failures in a row mean that the endpoint is down: fewer where it never answered."""
        limit = self.model.give_up_after
        return limit if self.num_calls else min(limit, self.model.concurrency)

    def _run_task(self, task: LLMTask[T]) -> TaskResult[T]:
        messages, tokens = list(task.messages), [0, 0]
        reason = ""
        for attempt in range(self.model.max_tries):
            answer = self._get_response(task.name, messages, attempt)
            tokens = [tokens[0] + answer["prompt_tokens"], tokens[1] + answer["completion_tokens"]]
            try:
                return TaskResult(_parse_response(task, answer), "", attempt + 1, *tokens)
            except InvalidResponse as error:
                reason = error.reason
                feedback = (
                    f"That cannot be used: {error.feedback}. Answer again, with the whole JSON object alone."
                )
            messages += [_message("assistant", answer["text"] or "(nothing)"), _message("user", feedback)]
        return TaskResult(None, reason, self.model.max_tries, *tokens)

    def _get_response(self, name: str, messages: list[Message], attempt: int) -> dict[str, Any]:
        """Return an answer, from the cache if it is there."""
        fields = {
            "temperature": self.model.temperature,
            "max_tokens": self.model.max_tokens,
            "seed": (zlib.crc32(name.encode()) + attempt) % 2**31,
        } | self.model.request
        fields = {field: value for field, value in fields.items() if value is not None}
        wording = json.dumps(messages, sort_keys=True, ensure_ascii=False)
        key = response_key(name, wording, self.model.endpoint.model, fields, attempt)
        answer = self._cache.get(key)
        if answer is None:
            if self._stopped.is_set():
                raise _BatchStopped
            answer = self._client.complete(messages, **fields)._asdict()
            self._cache.put(key, answer)
            with self._lock:
                self.num_calls += 1
        return answer

    def _sleep(self, wait_s: float) -> None:
        if self._stopped.wait(wait_s):
            raise _BatchStopped


class _BatchStopped(Exception):
    """The batch was left; nobody waits for its answers."""


def chat_messages(system: str, user: str) -> tuple[Message, ...]:
    """Return the first messages of a task."""
    return _message("system", system), _message("user", user)


def token_costs(model: LLMSettings, prompt_tokens: int, completion_tokens: int) -> dict[str, float]:
    """Return the numbers of tokens, and their cost where prices are known."""
    costs: dict[str, float] = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    if model.price_of_million_tokens:
        prompt_price, completion_price = model.price_of_million_tokens
        costs["cost"] = round((prompt_price * prompt_tokens + completion_price * completion_tokens) / 1e6, 6)
    return costs


def _parse_response(task: LLMTask[T], answer: dict[str, Any]) -> T:
    if answer["is_refused"]:
        raise InvalidResponse("refusal", "it was declined; write about the same in another way")
    if answer["is_cut"]:
        raise InvalidResponse("cut", "it ran into the limit of its length; be brief")
    return task.parse(answer["text"])


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _endpoint_error(error: ChatError, num_done: int) -> EndpointError:
    progress = f"{num_done} tasks are done, and every answer is kept."
    return EndpointError(f"{error} {progress} To resume, run the same command again.")
