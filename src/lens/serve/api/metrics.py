"""Numbers of a server for Prometheus: what the engine tells of itself, jobs, and requests by their outcome.

Read when somebody asks, so that nothing is counted twice.
"""

from collections.abc import Callable, Iterator
from typing import Any

from lens.serve.engine.client import EngineClient
from lens.serve.storage.jobs import QUEUED, RUNNING, JobStore

OUTCOMES = ("rejected", "finished", "failed", "cancelled")


class ServerMetrics:
    """The numbers of one server."""

    def __init__(self, engine: EngineClient, jobs: JobStore):
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self.registry: CollectorRegistry = CollectorRegistry()
        self.registry.register(_Collector(engine, jobs))  # type: ignore[arg-type]
        self.requests = Counter(
            "lens_http_requests", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "lens_http_request_seconds", "Seconds to the end of the answer.", ["route"],
            registry=self.registry, buckets=(0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300),
        )  # fmt: skip

    def render(self) -> bytes:
        """Return all numbers in Prometheus' own form."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)


class _Collector:
    def __init__(self, engine: EngineClient, jobs: JobStore):
        self._engine, self._jobs = engine, jobs

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        state = self._engine.state()
        waiting = {"waiting": state.num_waiting, "running": state.num_running}
        pictures = GaugeMetricFamily("lens_pictures", "Pictures in the engine.", labels=["state"])
        for name, number in waiting.items():
            pictures.add_metric([name], number)
        yield pictures
        yield GaugeMetricFamily("lens_queue_seconds", "Estimated work that waits.", value=state.queue_s)
        ended = CounterMetricFamily("lens_pictures_ended", "Pictures by how they ended.", labels=["how"])
        for name in OUTCOMES:
            ended.add_metric([name], getattr(state, name))
        yield ended
        yield CounterMetricFamily(
            "lens_tokens", "Tokens times steps that were computed.", value=state.num_tokens
        )
        texts = CounterMetricFamily("lens_text_features", "Prompts by whether kept.", labels=["found"])
        texts.add_metric(["hit"], state.prompt_cache_hits)
        texts.add_metric(["miss"], state.prompt_cache_misses)
        yield texts
        stages = CounterMetricFamily("lens_stage_seconds", "Seconds spent in each stage.", labels=["stage"])
        for name, seconds in state.stage_seconds.items():
            stages.add_metric([name], seconds)
        yield stages
        jobs = GaugeMetricFamily("lens_jobs", "Jobs that are not over.", labels=["state"])
        for name in (QUEUED, RUNNING):
            number = _count_or_none(lambda name=name: self._jobs.num_unfinished(status=name))
            if number is not None:
                jobs.add_metric([name], number)
        yield jobs


def _count_or_none(read: Callable[[], int]) -> int | None:
    try:
        return read()
    except Exception:  # a database that is away is no reason to hide the engine's numbers
        return None
