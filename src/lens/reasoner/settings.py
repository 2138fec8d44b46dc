"""The settings of a reasoner: which model, which system prompt, and what a request may cost."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from lens.config import Settings
from lens.errors import SettingError
from lens.llm.client import Endpoint

PROMPT_ROOM_TOKENS = 393
"""Tokens of a prompt that the released models read. Spec: section 4."""
Backend = Literal["endpoint", "gpt-oss", "transformers", "nano"]
Effort = Literal["low", "medium", "high"]


class ReasonerEndpoint(Endpoint):
    """Endpoint of a reasoner's model. Somebody waits for a picture, so it times out early."""

    timeout_s: float = Field(30.0, gt=0)
    """Of one attempt."""
    max_attempts: int = Field(2, ge=1)
    """Attempts at one request, the first one included."""
    first_wait_s: float = Field(0.5, ge=0)
    """Wait before the second attempt; it doubles with each attempt."""
    temperature: float | None = Field(0.7, ge=0)
    """None leaves it to the endpoint; some models accept no other than their own."""
    request: dict[str, Any] = Field(default_factory=dict)
    """Further fields of each request; null removes a field."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.url.startswith(("http://", "https://")):
            raise SettingError("endpoint.url", self.url, "to begin with http:// or https://")
        ours = {"model", "messages", "stream"} & set(self.request)
        if ours:
            raise SettingError(
                "endpoint.request", sorted(ours), "fields other than model, messages and stream"
            )
        return self


class ReasonerSettings(Settings):
    """A reasoner. It runs where a caller asks for it, never because a key or an endpoint is set."""

    backend: Backend
    """endpoint: any with OpenAI's API. gpt-oss: the text encoder of the pipeline. transformers: `model`.
    nano: the rule engine of the embedded model, without a language model."""
    endpoint: ReasonerEndpoint | None = None
    model: str | None = None
    """Folder or name of a causal language model for the backend transformers."""
    system_prompt: str = "general"
    """Name of a system prompt of Lens, or the path of a text file."""
    max_tokens: int = Field(4096, ge=1)
    """Largest length of an answer, with what the model thinks before it."""
    effort: Effort | None = None
    """How long the model thinks. None is low for gpt-oss, and is not sent to an endpoint."""
    uses_seed: bool = True
    """Whether the seed of a request reaches the model; without, each request has one answer for all seeds."""
    rewrites_detailed: bool = False
    """Whether a prompt that is detailed already is rewritten too."""
    max_prompt_tokens: int = Field(PROMPT_ROOM_TOKENS, ge=1)
    """Largest length of a refined prompt, counted by the tokenizer of the model that draws."""
    time_limit_s: float = Field(120.0, gt=0)
    """Of one request to the reasoner, all questions, attempts and waits included."""

    @model_validator(mode="after")
    def _backend_has_its_model(self) -> Self:
        if (self.endpoint is None) == (self.backend == "endpoint"):
            needs = "a url and a model" if self.endpoint is None else f"to be absent for {self.backend}"
            url = self.endpoint.url if self.endpoint else None
            raise SettingError("reasoner.endpoint", url, needs, "Or change reasoner.backend.")
        if (self.model is None) == (self.backend == "transformers"):
            needs = "a folder or a name" if self.model is None else f"to be absent for {self.backend}"
            raise SettingError("reasoner.model", self.model, needs, "Or change reasoner.backend.")
        return self
