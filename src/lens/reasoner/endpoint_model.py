"""A language model at an endpoint with OpenAI's API: constrained answers, calls that can be stopped."""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from lens.llm.client import REJECTED_REQUEST_STATUSES, ChatClient, ChatError, ChatResponse
from lens.reasoner.cleaning import chosen_answer
from lens.reasoner.language_model import Message, NoChoiceError, ReasoningStoppedError
from lens.reasoner.settings import Effort, ReasonerEndpoint

logger = logging.getLogger(__name__)

POLL_S = 0.02
"""How often a waiting caller is asked whether to stop."""
MAX_SEED = 2**31 - 1
"""The largest one that all servers read."""


class EndpointModel:
    """The model of an endpoint; threads may share it."""

    def __init__(self, endpoint: ReasonerEndpoint, effort: Effort | None = None):
        self._endpoint, self._effort = endpoint, effort
        self._client = ChatClient(endpoint, sleep=self._sleep)
        self._thread = threading.local()
        self._takes_schema = True
        """Until the endpoint rejects a request with structured output, and accepts it without."""

    @property
    def name(self) -> str:
        """The name of the model, without the address of the endpoint, as pictures record it."""
        return self._endpoint.model

    def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        seed: int,
        choices: Sequence[str] = (),
        should_stop: Callable[[], bool] | None = None,
    ) -> ChatResponse:
        """Return the answer to a conversation; with `choices`, the answer is one of them.

        Raises: ChatError if there is no answer, NoChoiceError for one that is none of the choices;
        ReasoningStoppedError.
        """
        fields = self._fields(max_tokens, seed)
        if not choices:
            return self._ask(messages, fields, should_stop)
        response = self._ask_with_choices(messages, fields, choices, should_stop)
        if response.is_refused:
            return response
        choice = chosen_answer(response.text, choices)
        if choice is None:
            raise NoChoiceError(choices)
        return response._replace(text=choice)

    def close(self) -> None:
        self._client.close()

    def _fields(self, max_tokens: int, seed: int) -> dict[str, Any]:
        fields: dict[str, Any] = {"max_tokens": max_tokens, "seed": seed & MAX_SEED}
        if self._endpoint.temperature is not None:
            fields["temperature"] = self._endpoint.temperature
        if self._effort is not None:
            fields["reasoning_effort"] = self._effort
        fields |= self._endpoint.request
        return {name: value for name, value in fields.items() if value is not None}

    def _ask_with_choices(
        self,
        messages: Sequence[Message],
        fields: dict[str, Any],
        choices: Sequence[str],
        should_stop: Callable[[], bool] | None,
    ) -> ChatResponse:
        # The likeliest choice, not one that is drawn: a request is refused today and tomorrow.
        fields = fields | ({"temperature": 0} if "temperature" in fields else {})
        if self._takes_schema:
            try:
                return self._ask(messages, fields | choice_format(choices), should_stop)
            except ChatError as error:
                if error.status not in REJECTED_REQUEST_STATUSES:
                    raise
        response = self._ask(messages, fields, should_stop)
        if self._takes_schema:
            logger.info("the endpoint takes no structured output: answers of %s are validated", self.name)
            self._takes_schema = False
        return response

    def _ask(
        self, messages: Sequence[Message], fields: dict[str, Any], should_stop: Callable[[], bool] | None
    ) -> ChatResponse:
        """Return the answer; a caller that stops leaves a thread behind, until its attempt ends."""
        call = _Call(lambda: self._client.complete(messages, **fields), self._thread)
        if should_stop is None:
            return call.result()
        call.start()
        while not call.is_done.wait(POLL_S):
            if should_stop():
                call.is_stopped.set()
                raise ReasoningStoppedError("The request was stopped while its language model was asked.")
        return call.result()

    def _sleep(self, seconds: float) -> None:
        """Wait between attempts; a call that nobody waits for makes no further attempt."""
        if self._thread.is_stopped.wait(seconds):
            raise ReasoningStoppedError("Nobody waits for this answer.")


class _Call:
    """A call that runs in a thread of its own, so that its caller can leave it."""

    def __init__(self, function: Callable[[], ChatResponse], place: threading.local):
        self._function, self._place = function, place
        self.is_done, self.is_stopped = threading.Event(), threading.Event()
        self._response: ChatResponse | None = None
        self._error: BaseException | None = None

    def start(self) -> None:
        # Ends with the process: a server that shuts down does not wait for an endpoint.
        threading.Thread(target=self._run, daemon=True).start()

    def result(self) -> ChatResponse:
        if not self.is_done.is_set():
            self._run()
        if self._error is not None:
            raise self._error
        assert self._response is not None
        return self._response

    def _run(self) -> None:
        self._place.is_stopped = self.is_stopped
        try:
            self._response = self._function()
        except BaseException as error:
            self._error = error
        self.is_done.set()


def choice_format(choices: Sequence[str]) -> dict[str, Any]:
    """Return the field of a request that constrains its answer to an object with one of the choices."""
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "string", "enum": list(choices)}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    return {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "choice", "strict": True, "schema": schema},
        }
    }
