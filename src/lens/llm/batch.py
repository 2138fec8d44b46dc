"""Asks a language model many things at once, each until the answer is right; every answer is kept.

A run that was stopped or killed goes on without asking anything again that was answered. Knows nothing of
what is asked: a task brings its messages, and reads an answer or says what is wrong with it.
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
from lens.llm.client import Chat, ChatError
from lens.llm.response_cache import Answers, answer_key
from lens.rl.prompts.settings import LanguageModel

TURNED_DOWN = "turned_down"
"""Why something fell whose question the endpoint did not take: the one reason that is asked about again."""
REFUSES_THIS_ONE = (400, 413, 415, 422)
"""Statuses that say that one request cannot be answered, not that none can."""

T = TypeVar("T")
Message = dict[str, Any]


class Unfit(Exception):
    """An answer that cannot be used."""

    def __init__(self, reason: str, fault: str):
        super().__init__(fault)
        self.reason = reason
        """One word, for counting."""
        self.fault = fault
        """For the model."""


class Unanswered(LensError):
    """An endpoint that does not answer; the same command goes on with what is missing."""


class Task(NamedTuple, Generic[T]):
    """One thing that a model has to write."""

    name: str
    """Tells it from all others of its set."""
    messages: tuple[Message, ...]
    read: Callable[[str], T]
    """Turns an answer into what is wanted. Raises: Unfit."""


class Outcome(NamedTuple, Generic[T]):
    """What came of a task."""

    result: T | None
    reason: str = ""
    """Why there is no result: what was wrong with the last answer, in one word."""
    tries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Asking:
    """Asks one model; what it answered lies in one file that only grows. One process may use it."""

    def __init__(self, model: LanguageModel, answers: Path):
        self.model = model
        self.num_calls = 0
        """Answers that this object was given, those from its file not counted."""
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._chat = Chat(model.endpoint, sleep=self._sleep)
        self._answers = Answers(answers)
        self._pool = ThreadPoolExecutor(model.concurrency)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Wait for the answers that are on their way, and keep them; ask nothing more."""
        self._stopped.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._answers.close()
        self._chat.close()

    def outcomes(self, tasks: Iterable[Task[T]]) -> Iterator[tuple[str, Outcome[T]]]:
        """Yield what came of each task, by its name, as soon as it did.

        Raises: Unanswered when the endpoint does not answer, or says that it never will.
        """
        left, waiting = iter(tasks), dict[Future[Outcome[T]], str]()
        failed, in_a_row, num_done = list[ChatError](), 0, 0
        while True:
            while len(waiting) < 2 * self.model.concurrency and (task := next(left, None)):
                waiting[self._pool.submit(self._outcome, task)] = task.name
            if not waiting:
                break
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                name = waiting.pop(future)
                try:
                    outcome, in_a_row = future.result(), 0
                except ChatError as error:
                    in_a_row += 1
                    is_of_this_one = error.status in REFUSES_THIS_ONE
                    if in_a_row >= self._patience or (error.is_final and not is_of_this_one):
                        raise _unanswered(error, num_done) from error
                    if not is_of_this_one:
                        failed.append(error)
                        continue
                    outcome = Outcome(None, TURNED_DOWN)
                num_done += 1
                yield name, outcome
        if failed:
            raise _unanswered(failed[-1], num_done)

    @property
    def _patience(self) -> int:
        """Return how many failures in a row mean that the endpoint is dead: fewer where it never answered."""
        most = self.model.give_up_after
        return most if self.num_calls else min(most, self.model.concurrency)

    def _outcome(self, task: Task[T]) -> Outcome[T]:
        messages, tokens = list(task.messages), [0, 0]
        reason = ""
        for attempt in range(self.model.max_tries):
            answer = self._answer(task.name, messages, attempt)
            tokens = [tokens[0] + answer["prompt_tokens"], tokens[1] + answer["completion_tokens"]]
            try:
                return Outcome(_read(task, answer), "", attempt + 1, *tokens)
            except Unfit as unfit:
                reason = unfit.reason
                told = f"That cannot be used: {unfit.fault}. Answer again, with the whole JSON object alone."
            messages += [_message("assistant", answer["text"] or "(nothing)"), _message("user", told)]
        return Outcome(None, reason, self.model.max_tries, *tokens)

    def _answer(self, name: str, messages: list[Message], attempt: int) -> dict[str, Any]:
        """Return an answer, the kept one if there is one."""
        fields = {
            "temperature": self.model.temperature,
            "max_tokens": self.model.max_tokens,
            "seed": (zlib.crc32(name.encode()) + attempt) % 2**31,
        } | self.model.request
        fields = {field: value for field, value in fields.items() if value is not None}
        wording = json.dumps(messages, sort_keys=True, ensure_ascii=False)
        key = answer_key(name, wording, self.model.endpoint.model, fields, attempt)
        answer = self._answers.get(key)
        if answer is None:
            if self._stopped.is_set():
                raise _Stopped
            answer = self._chat.ask(messages, **fields)._asdict()
            self._answers.put(key, answer)
            with self._lock:
                self.num_calls += 1
        return answer

    def _sleep(self, wait_s: float) -> None:
        if self._stopped.wait(wait_s):
            raise _Stopped


class _Stopped(Exception):
    """Whoever asked does not wait any more."""


def asked_by(system: str, user: str) -> tuple[Message, ...]:
    """Return the messages that a task begins with."""
    return _message("system", system), _message("user", user)


def cost_of(model: LanguageModel, prompt_tokens: int, completion_tokens: int) -> dict[str, float]:
    """Return tokens, and what they cost where prices are known."""
    costs: dict[str, float] = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    if model.price_of_million_tokens:
        asked, written = model.price_of_million_tokens
        costs["cost"] = round((asked * prompt_tokens + written * completion_tokens) / 1e6, 6)
    return costs


def _read(task: Task[T], answer: dict[str, Any]) -> T:
    if answer["is_refused"]:
        raise Unfit("refusal", "it was declined; write about the same in another way")
    if answer["is_cut"]:
        raise Unfit("cut", "it ran into the limit of its length; be brief")
    return task.read(answer["text"])


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _unanswered(error: ChatError, num_done: int) -> Unanswered:
    kept = f"{num_done} questions have been dealt with, and every answer is kept."
    return Unanswered(f"{error} {kept} Run the same command again to go on.")
