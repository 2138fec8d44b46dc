"""What a reasoner returns for a request. Spec: section 11.

Knows nothing of language models, files or images.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol, Self

Outcome = Literal["refined", "unchanged", "refused", "failed"]
"""refined: another prompt is drawn. unchanged: the request is drawable as it is. refused: nothing is drawn.
failed: no valid prompt came; the request itself is drawn, and its user is told why."""


class Check(NamedTuple):
    """A rule that a refined prompt has to keep, checked by program."""

    rule: str
    """Such as quoted_text, numbers, colours, language, length, one_prompt."""
    is_kept: bool
    detail: str = ""
    """What broke, in words for the user and for the request that asks for a repair."""


class Usage(NamedTuple):
    """What a request cost."""

    num_requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    is_cached: bool = False
    """Whether the answer came from the cache; the counts are then those of the first time."""


class Reasoned(NamedTuple):
    """The answer of a reasoner to one request."""

    outcome: Outcome
    prompt: str
    """What is to be drawn: the refined prompt, or the request itself unless the outcome is `refined`."""
    original: str
    """The request."""
    reason: str | None = None
    """Why it was refused, failed or left unchanged; a sentence for the user."""
    category: str | None = None
    """The category of the operator's policy that refused it."""
    checks: tuple[Check, ...] = ()
    """The checks of the last answer of the model."""
    usage: Usage = Usage()
    model: str | None = None
    """Name of the language model, or of the rule engine."""
    system_prompt: str | None = None
    """Name of the system prompt, such as general."""
    system_prompt_hash: str | None = None
    """SHA-256 of its text."""
    is_unavailable: bool = False
    """Whether the model did not answer, so that the same request may have another outcome later."""

    @property
    def warning(self) -> str | None:
        """What a user is told where no valid prompt came and the request itself is drawn; None elsewhere."""
        if self.outcome != "failed":
            return None
        reason = (self.reason or "its reasoner gave no reason").strip().rstrip(".")
        return f"The prompt is drawn as it was written, because it could not be refined: {reason}."

    def to_json(self) -> dict[str, Any]:
        """Return values that JSON can represent, by name; `from_json` reads them."""
        checks = [check._asdict() for check in self.checks]
        return self._asdict() | {"checks": checks, "usage": self.usage._asdict()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote."""
        checks = tuple(Check(**check) for check in values["checks"])
        return cls(**{**values, "checks": checks, "usage": Usage(**values["usage"])})


class Reasoner(Protocol):
    """Any reasoner: one in front of a language model, or a rule engine. Threads may share it."""

    def __call__(
        self, prompt: str, *, seed: int = 0, should_stop: Callable[[], bool] | None = None
    ) -> Reasoned:
        """Return the answer to a request; a model that does not answer is the outcome `failed`.

        Raises: ReasoningStoppedError soon after `should_stop` returns True; nothing else.
        """
        ...
