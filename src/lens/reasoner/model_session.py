"""The questions that one request puts to a language model: their time, their cost, and a stop meanwhile."""

import logging
import time
from collections.abc import Callable, Sequence

from lens.llm.client import ChatError, ChatResponse
from lens.reasoner.language_model import LanguageModel, Message, ReasoningStoppedError
from lens.reasoner.outcome import Usage

logger = logging.getLogger(__name__)


class ModelSession:
    """Asks a model for one request; one thread uses it."""

    def __init__(
        self,
        model: LanguageModel,
        *,
        seed: int,
        max_tokens: int,
        time_limit_s: float,
        should_stop: Callable[[], bool] | None = None,
    ):
        self._model, self._seed, self._max_tokens = model, seed, max_tokens
        self._time_limit_s, self._deadline = time_limit_s, time.monotonic() + time_limit_s
        self._should_stop = should_stop
        self.usage = Usage()

    def ask(self, messages: Sequence[Message], choices: Sequence[str] = ()) -> ChatResponse:
        """Return the answer to a conversation.

        A choice does not depend on the seed, so that no seed overturns a refusal.
        Raises: ChatError if there is none for any reason, or too late; ReasoningStoppedError.
        """
        self.check_stop()
        self.usage = self.usage._replace(num_requests=self.usage.num_requests + 1)
        try:
            response = self._model.complete(
                messages,
                max_tokens=self._max_tokens,
                seed=0 if choices else self._seed,
                choices=choices,
                should_stop=lambda: self._is_late() or self._is_stopped(),
            )
        except ReasoningStoppedError as error:
            if self._is_stopped() or not self._is_late():
                raise
            raise self._too_late() from error
        except ChatError:
            raise
        except Exception as error:  # a model of this process: no memory, broken weights, and what else fails
            logger.exception("the language model %s failed", self._model.name)
            raise ChatError(f"The language model failed ({type(error).__name__}).", is_final=True) from error
        self.usage = self.usage._replace(
            prompt_tokens=self.usage.prompt_tokens + response.prompt_tokens,
            completion_tokens=self.usage.completion_tokens + response.completion_tokens,
        )
        return response

    def check_stop(self) -> None:
        """Raise ReasoningStoppedError if the caller stopped, ChatError if the time is over."""
        if self._is_stopped():
            raise ReasoningStoppedError("The request to the reasoner was stopped.")
        if self._is_late():
            raise self._too_late()

    def _is_stopped(self) -> bool:
        return self._should_stop is not None and self._should_stop()

    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline

    def _too_late(self) -> ChatError:
        return ChatError(f"The language model took more than {self._time_limit_s:g} s.", is_final=True)
