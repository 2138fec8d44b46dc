"""A language model of this process as a chat model: budget, seed, choices, a stop at every token.

One request runs at a time; others wait for it, and can be stopped while they wait.
"""

import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lens.errors import NonFiniteError, SettingError
from lens.llm.client import ChatError, ChatResponse
from lens.models.memory import is_out_of_memory
from lens.reasoner.language_model import Message, ReasoningStoppedError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from lens.models.chat.harmony import HarmonyFormat
    from lens.models.chat.templates import TemplateFormat

logger = logging.getLogger(__name__)

NUM_SEEDS = 2**63
"""What the generator takes; other seeds are counted from its beginning."""
STOP_POLL_S = 0.05
"""How often a request that waits for another one asks whether it is to stop."""


class LocalModel:
    """A model whose tokens this process computes; threads may share it."""

    def __init__(
        self,
        model: Any,
        tokenizer: "PreTrainedTokenizerFast",
        chat_format: "HarmonyFormat | TemplateFormat",
        *,
        name: str,
        temperature: float,
    ):
        if not (math.isfinite(temperature) and temperature >= 0):
            raise SettingError("temperature", temperature, "a number that is not below 0")
        self._model, self._tokenizer, self._format = model, tokenizer, chat_format
        self._name, self._temperature = name, temperature
        self._lock = threading.Lock()
        self._has_told_cost = False

    @property
    def name(self) -> str:
        return self._name

    def cost_note(self, max_tokens: int) -> str:
        """Return what an answer costs at most on this machine; it is logged before the first one."""
        from lens.models.chat.cost import cost_note

        return cost_note(self._model, max_tokens)

    def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        seed: int,
        choices: Sequence[str] = (),
        should_stop: Callable[[], bool] | None = None,
    ) -> ChatResponse:
        """Return the answer to a conversation, or with `choices` the most likely one of them.

        A budget that is spent before the answer gives a cut answer without text. A choice is always made, as
        thinking ends in time for it.
        Raises: ChatError if there is no answer; ReasoningStoppedError once `should_stop` returns True.
        """
        if max_tokens < 1:
            raise SettingError("max_tokens", max_tokens, "1 or more")
        with self._turn(should_stop) as check_stop:
            if not self._has_told_cost:
                self._has_told_cost = True
                logger.info("The reasoner is %s. %s", self.name, self.cost_note(max_tokens))
            answer = _Answer(self._model, self._tokenizer, self._format, messages, check_stop)
            if choices:
                return answer.choose(choices, max_tokens, self._temperature, seed)
            return answer.write(max_tokens, self._temperature, seed)

    @contextmanager
    def _turn(self, should_stop: Callable[[], bool] | None) -> Iterator[Callable[[], None]]:
        """Wait for the model, and give a function that raises where the caller has stopped."""

        def check_stop() -> None:
            if should_stop is not None and should_stop():
                raise ReasoningStoppedError(f"The request to {self.name} was stopped.")

        check_stop()
        while not self._lock.acquire(timeout=STOP_POLL_S):
            check_stop()
        try:
            yield check_stop
        except NonFiniteError as error:
            raise ChatError(str(error), is_final=True) from error
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ChatError(f"There is not enough memory for {self.name}: {error}", is_final=True) from error
        finally:
            self._lock.release()


class _Answer:
    """One answer to one conversation."""

    def __init__(
        self,
        model: Any,
        tokenizer: "PreTrainedTokenizerFast",
        chat_format: Any,
        messages: Sequence[Message],
        check_stop: Callable[[], None],
    ):
        from lens.models.chat.continuation import Continuation

        self._tokenizer, self._end_ids = tokenizer, chat_format.end_ids
        self._prompt_ids = chat_format.conversation_ids(messages)
        self._room = _room(model, len(self._prompt_ids))
        self._reader = chat_format.reader(self._prompt_ids)
        self._text = Continuation(model, check_stop)
        self._unread = self._prompt_ids
        self._num_tokens = 0

    def write(self, max_tokens: int, temperature: float, seed: int) -> ChatResponse:
        """Return the text of the answer, which is cut at the budget or at the end of the context."""
        reader = self._reader
        self._sample_until(lambda: reader.is_complete, min(max_tokens, self._room), temperature, seed)
        text = self._tokenizer.decode(
            reader.answer_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return self._response(str(text).strip(), is_cut=not reader.is_complete)

    def choose(
        self, choices: Sequence[str], max_tokens: int, temperature: float, seed: int
    ) -> ChatResponse:
        """Return the most likely choice, after what the model thinks before it answers."""
        from lens.models.prompt_template import token_ids

        options = [token_ids(self._tokenizer, choice) for choice in choices]
        longest = max(map(len, options)) + 1
        reader = self._reader
        budget = min(max_tokens, self._room) - longest
        self._sample_until(lambda: reader.is_answering or reader.is_complete, budget, temperature, seed)
        # A token that ends the model's turn too early is not read: the answer is still to come.
        unread = [] if reader.is_complete else self._unread
        if opening := [*unread, *reader.opening_ids()]:
            self._text.read(opening)
        scores = self._text.log_probabilities(options, self._end_ids)
        best = max(range(len(choices)), key=scores.__getitem__)
        self._num_tokens += len(options[best]) + 1
        return self._response(choices[best], is_cut=False)

    def _sample_until(
        self, is_done: Callable[[], bool], budget: int, temperature: float, seed: int
    ) -> None:
        import torch

        generator = torch.Generator().manual_seed(seed % NUM_SEEDS)
        while self._num_tokens < budget and not is_done():
            self._text.read(self._unread)
            token = self._text.sample(temperature, generator)
            self._reader.push(token)
            self._unread = [token]
            self._num_tokens += 1

    def _response(self, text: str, *, is_cut: bool) -> ChatResponse:
        return ChatResponse(text, False, is_cut, len(self._prompt_ids), self._num_tokens)


def _room(model: Any, num_prompt_tokens: int) -> int:
    """Return how many tokens may follow a conversation. Raises: ChatError where none may."""
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**31
    if num_prompt_tokens >= context:
        raise ChatError(
            f"The conversation has {num_prompt_tokens} tokens, and the model reads {context}. Shorten the "
            "request or the system prompt.",
            is_final=True,
        )
    return context - num_prompt_tokens
