"""The interface of an engine, in this process or elsewhere: models, requests, state, shutdown."""

from typing import Protocol

from lens.serve.engine.request import EngineState, GenerationRequest, ModelInfo
from lens.serve.engine.request_handle import RequestHandle


class EngineClient(Protocol):
    """An engine as its callers see it; every method is safe in any thread."""

    def models(self) -> list[ModelInfo]:
        """Return the models that requests can name; the first is the default."""
        ...

    def loras(self) -> list[str]:
        """Return the names of the LoRAs that requests can name."""
        ...

    def submit(self, request: GenerationRequest) -> RequestHandle:
        """Accept a request and queue it.

        Raises: SettingError for a request that cannot be served; QueueFullError, which says when to retry;
        DrainingError during shutdown.
        """
        ...

    def state(self) -> EngineState:
        """Return counters for metrics and health checks."""
        ...

    def drain(self, timeout_s: float | None = None) -> None:
        """Accept no more requests, finish the accepted ones, and shut down.

        Requests that are not finished in time fail with DrainingError.
        """
        ...
