"""The deployment of engines on Ray Serve: the code that runs in each replica.

A replica is one engine in its own process, on any machine of the cluster. It streams the events of a request
while the client reads them; source images arrive as bytes. Knows nothing of HTTP, jobs or other replicas. Ray
is an extra, so functions import it.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lens.serve.engine.request import EngineEvent, EngineState, Failed, Finished, GenerationRequest
from lens.serve.settings.ray import num_replicas_for_load
from lens.serve.settings.server import ServerSettings

APPLICATION_NAME = "lens"
"""Name of the application in Ray Serve and of its deployment."""
MAX_START_ATTEMPTS = 3
"""Failed starts of a replica after which the deployment fails."""
READER_CHECK_INTERVAL_S = 0.5
"""Interval at which a thread that waits for an event checks for a disconnected reader."""


@dataclass(frozen=True)
class ReplicaEvent:
    """An event of a request, with the replica and the state of its engine."""

    replica: str
    """host/process id"""
    event: EngineEvent
    state: EngineState


class EngineReplica:
    """A replica: one engine."""

    def __init__(self, settings: ServerSettings):
        from lens.serve.engine.engine import Engine
        from lens.serve.engine.model_registry import ModelRegistry

        self.name = f"{socket.gethostname()}/{os.getpid()}"
        self._threads = ThreadPoolExecutor(max_ongoing_requests(settings), "lens-replica")
        registry = ModelRegistry.from_names(settings.models, settings.served_loras)
        self.engine = Engine(registry, settings.engine)
        self.engine.wait_until_ready()

    async def generate(
        self, request: GenerationRequest, files: Mapping[str, bytes]
    ) -> AsyncIterator[ReplicaEvent]:
        """Generate one image and yield its events; a reader that stops cancels it."""
        with TemporaryDirectory(prefix="lens-") as folder:
            try:
                if request.loras:
                    await self.load_adapters(lora_set_key(request))
                handle = await self._in_thread(
                    self.engine.submit, _write_input_files(request, files, Path(folder))
                )
            except Exception as error:
                yield self._replica_event(Failed(error))
                return
            try:
                while True:
                    try:
                        event = await self._in_thread(handle.next_event, READER_CHECK_INTERVAL_S)
                    except TimeoutError:
                        continue
                    yield self._replica_event(event)
                    if isinstance(event, Finished | Failed):
                        return
            finally:
                handle.cancel()

    async def load_adapters(self, key: str) -> str:
        """Record a LoRA set for Ray's routing; the engine loads it with the first request that names it."""
        return key

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the load of this replica, from which Ray Serve scales their number."""
        state = self.engine.state()
        return {"queue_seconds": state.queue_s, "busy": float(state.num_running > 0)}

    async def check_health(self) -> None:
        """Raise RuntimeError if the engine has stopped; Ray Serve then starts another replica."""
        if not self.engine.is_ready:
            raise RuntimeError("The engine has stopped.")

    def __del__(self) -> None:
        """Called by Ray Serve after a replica that shuts down has finished its requests."""
        if hasattr(self, "engine"):
            self.engine.drain(timeout_s=0)

    async def _in_thread(self, call: Any, *values: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *values)

    def _replica_event(self, event: EngineEvent) -> ReplicaEvent:
        return ReplicaEvent(self.name, event, self.engine.state())


def lora_set_key(request: GenerationRequest) -> str:
    """Return a key of the LoRAs of a request, without their weights."""
    return "+".join([request.model, *sorted(lora.name for lora in request.loras)])


def gpus_per_replica(settings: ServerSettings) -> float:
    """Return the GPUs that Ray reserves for a replica; it hides all others."""
    given = settings.ray.gpus if settings.ray is not None else None
    return float(settings.engine.device.startswith("cuda")) if given is None else given


def max_ongoing_requests(settings: ServerSettings) -> int:
    """Return how many requests Ray sends to a replica: more than its engine accepts, which rejects them."""
    return settings.engine.max_running + settings.engine.max_waiting + 16


class QueueScalingPolicy:
    """The autoscaling policy of the deployment."""

    def __init__(self, queue_s: float):
        self._queue_s = queue_s

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        metrics = context.aggregated_metrics or {}
        if not metrics.get("busy"):
            return context.target_num_replicas, {}  # no replica has reported yet
        seconds, busy = metrics.get("queue_seconds", {}).values(), metrics["busy"].values()
        return num_replicas_for_load(seconds, busy, self._queue_s), {}


def build_application(settings: ServerSettings) -> Any:
    """Return the application for Ray Serve."""
    from ray import serve
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

    ray = settings.ray
    assert ray is not None

    class LensEngine(EngineReplica):
        @serve.multiplexed(max_num_models_per_replica=ray.loras_a_replica)
        async def load_adapters(self, key: str) -> str:
            return key

    number: dict[str, Any] = {"num_replicas": ray.replicas}
    if ray.replica_limit > ray.replicas:
        policy = AutoscalingPolicy(policy_function=QueueScalingPolicy, policy_kwargs={"queue_s": ray.queue_s})
        scaling = AutoscalingConfig(
            min_replicas=ray.replicas,
            max_replicas=ray.replica_limit,
            metrics_interval_s=2,
            look_back_period_s=10,
            upscale_delay_s=5,
            downscale_delay_s=120,
            policy=policy,
        )
        number = {"autoscaling_config": scaling}
    deployed = serve.deployment(
        LensEngine,
        name=APPLICATION_NAME,
        max_ongoing_requests=max_ongoing_requests(settings),
        ray_actor_options={"num_cpus": ray.cpus, "num_gpus": gpus_per_replica(settings)},
        max_constructor_retry_count=MAX_START_ATTEMPTS,
        health_check_period_s=ray.health_s,
        graceful_shutdown_timeout_s=settings.drain_s,
        **number,
    )
    return deployed.bind(settings)


def read_input_files(request: GenerationRequest) -> dict[str, bytes]:
    """Return the source image and the mask of a request, for another machine."""
    paths = {"image": request.image, "mask": request.mask}
    return {name: path.read_bytes() for name, path in paths.items() if path is not None}


def _write_input_files(
    request: GenerationRequest, files: Mapping[str, bytes], folder: Path
) -> GenerationRequest:
    paths = {}
    for name, content in files.items():
        paths[name] = folder / f"{name}{getattr(request, name).suffix}"
        paths[name].write_bytes(content)
    return replace(request, **paths)
