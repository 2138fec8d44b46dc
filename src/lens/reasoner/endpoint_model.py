"""A language model at an endpoint with OpenAI's API: constrained answers, calls that can be stopped."""

from collections.abc import Callable, Sequence

from lens.llm.client import ChatClient, ChatResponse
from lens.reasoner.language_model import Message
from lens.reasoner.settings import Effort, ReasonerEndpoint


class EndpointModel:
    """The model of an endpoint; threads may share it."""

    def __init__(self, endpoint: ReasonerEndpoint, effort: Effort | None = None):
        self._endpoint, self._effort = endpoint, effort
        self._client = ChatClient(endpoint)

    @property
    def name(self) -> str:
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
        raise NotImplementedError
