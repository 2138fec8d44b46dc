"""Prometheus metrics: the engine's counters, outcomes of reasoners, unfinished jobs, HTTP requests by status.

The engine's counters and those of the reasoners are read at each scrape, not copied.
"""

from collections.abc import Callable, Iterator
from typing import Any

from lens.serve.api.reasoning import ServerReasoning
from lens.serve.engine.client import EngineClient
from lens.serve.storage.jobs import QUEUED, RUNNING, JobStore

OUTCOMES = ("rejected", "finished", "failed", "cancelled")


class ServerMetrics:
    """The metrics of one server."""

    def __init__(self, engine: EngineClient, jobs: JobStore, reasoning: ServerReasoning):
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self.registry: CollectorRegistry = CollectorRegistry()
        self.registry.register(_Collector(engine, jobs, reasoning))  # type: ignore[arg-type]
        self.requests = Counter(
            "lens_http_requests", "HTTP requests.", ["route", "status"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "lens_http_request_seconds", "Seconds until the end of the response.", ["route"],
            registry=self.registry, buckets=(0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300),
        )  # fmt: skip

    def render(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)


class _Collector:
    def __init__(self, engine: EngineClient, jobs: JobStore, reasoning: ServerReasoning):
        self._engine, self._jobs, self._reasoning = engine, jobs, reasoning

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        state = self._engine.state()
        waiting = {"waiting": state.num_waiting, "running": state.num_running}
        pictures = GaugeMetricFamily("lens_pictures", "Images in the engine.", labels=["state"])
        for name, number in waiting.items():
            pictures.add_metric([name], number)
        yield pictures
        yield GaugeMetricFamily(
            "lens_queue_seconds", "Estimated seconds of queued work.", value=state.queue_s
        )
        ended = CounterMetricFamily(
            "lens_pictures_ended", "Finished, failed, cancelled and rejected images.", labels=["how"]
        )
        for name in OUTCOMES:
            ended.add_metric([name], getattr(state, name))
        yield ended
        yield CounterMetricFamily("lens_tokens", "Tokens times denoiser evaluations.", value=state.num_tokens)
        texts = CounterMetricFamily(
            "lens_text_features", "Prompts in memory, on disk, or encoded.", labels=["found"]
        )
        texts.add_metric(["hit"], state.prompt_cache_hits)
        texts.add_metric(["disk"], state.prompt_cache_disk_hits)
        texts.add_metric(["miss"], state.prompt_cache_misses - state.prompt_cache_disk_hits)
        yield texts
        stages = CounterMetricFamily("lens_stage_seconds", "Seconds in each stage.", labels=["stage"])
        for name, seconds in state.stage_seconds.items():
            stages.add_metric([name], seconds)
        yield stages
        reasoned = CounterMetricFamily(
            "lens_reasoned_prompts", "Prompts that reasoners were asked about.", labels=["outcome"]
        )
        for name, number in self._reasoning.ends().items():
            reasoned.add_metric([name], number)
        yield reasoned
        jobs = GaugeMetricFamily("lens_jobs", "Unfinished jobs.", labels=["state"])
        for name in (QUEUED, RUNNING):
            number = _count_or_none(lambda name=name: self._jobs.num_unfinished(status=name))
            if number is not None:
                jobs.add_metric([name], number)
        yield jobs


def _count_or_none(read: Callable[[], int]) -> int | None:
    try:
        return read()
    except Exception:  # without the database, the engine's metrics remain
        return None
