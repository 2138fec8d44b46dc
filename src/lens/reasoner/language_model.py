"""What a reasoner needs of a language model, wherever it runs."""

from collections.abc import Callable, Sequence
from typing import Protocol

from lens.errors import LensError
from lens.llm.client import ChatError, ChatResponse

Message = dict[str, str]
"""role (system, user or assistant) and content."""


class ReasoningStoppedError(LensError):
    """The caller stopped a reasoner while it was waiting for its model."""


class NoChoiceError(ChatError):
    """An answer that is none of the choices, from a model that cannot be constrained."""

    def __init__(self, choices: Sequence[str]):
        super().__init__(f"The answer is none of {', '.join(choices)}.", is_final=True)


class LanguageModel(Protocol):
    """A chat model: an endpoint, GPT-OSS as the text encoder of a pipeline, or a model of transformers.

    Threads may share it.
    """

    @property
    def name(self) -> str:
        """What identifies the model in caches and records."""
        ...

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

        `max_tokens` includes what the model thinks before it answers. The same seed gives the same answer
        where the model can promise that.
        Raises: ChatError if there is no answer, NoChoiceError if it is none of the choices;
        ReasoningStoppedError once `should_stop` returns True.
        """
        ...
